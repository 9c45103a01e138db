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
