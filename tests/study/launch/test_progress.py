import io
import json

import pytest
from rich.console import Console

from metaloss.core.storage.run_folder import read_run
from metaloss.study.launch.jobs import plan_jobs
from metaloss.study.launch.progress import Display
from metaloss.study.spec.spec import Row, Study

WORDS = {
    "hand-made": ("schedule=static", "loss=cross_entropy"),
    "online": ("schedule=online", "loss=mlp"),
    "offline": ("schedule=offline", "loss=mlp", "schedule.offline_steps=300"),
}


@pytest.mark.parametrize("row", WORDS)
def test_the_bar_of_a_run_fills_as_its_journal_grows(row, tmp_path, runs):
    study = Study(rows=(Row(name=row, overrides=WORDS[row]),), common=("task=digits", "steps=400"))
    (job,) = plan_jobs(study, tmp_path)
    runs.write_run(job.folder, job.overrides)
    journal = job.folder / "journal.jsonl"
    lines, rows = journal.read_text().splitlines(), read_run(job.folder).journal
    display = Display([job], Console(file=io.StringIO(), force_terminal=True))
    display.started(job)
    bar = display._bars.tasks[-1]
    assert bar.total is None, "nothing is known yet"
    for number in (1, len(lines) // 2, len(lines)):
        journal.write_text("\n".join(lines[:number]) + "\n")
        display.look()
        assert bar.total == rows[-1].step
        assert bar.completed == json.loads(lines[number - 1])["step"]
    assert bar.finished


def test_names_are_whole_beside_the_bars_of_a_narrow_terminal(tmp_path, runs):
    name = "generalised cross-entropy + trusted rows, setting 3"
    study = Study(rows=(Row(name=name, overrides=WORDS["hand-made"]),), common=("task=digits",))
    (job,) = plan_jobs(study, tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    display = Display([job], console)
    display.started(job)
    console.print(display._bars.get_renderable())
    (line,) = [one for one in console.file.getvalue().splitlines() if f"{name}, seed 0" in one]
    assert len(line.rstrip()) <= 80
