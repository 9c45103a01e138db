"""The commands on the pages are run to the length that is written there, and their numbers held."""

import functools
import json
import re
import shlex
import subprocess
import sys

import pytest
from sklearn.datasets import load_wine

from .test_pages import ROOT, commands, plugin_files

# Test errors that a page states, or that were seen when it was written, by the words of a command.
# In another order of sums a learned loss's run moves by about as much as TOLERANCE.
TOLERANCE = 0.03
HELD = {
    "task=digits task.label_noise=0.5 schedule=online steps=1000": 0.040,
    "task=digits task.label_noise=0.5 schedule=static steps=1000": 0.207,
    "loss=load loss.path=my_loss start=keep schedule=static task=mnist1d": 0.359,
    "loss.class_offsets=0 steps=200 output=runs/teacher": 0.013,
}
# Why a command is not run.
LEFT_OUT = {
    "tracker.wandb.project": "needs an account",
    "hydra/launcher=ray": "needs a cluster",
    "+paper=": "needs CIFAR-10, and hours on a GPU",
    "--study": "takes hours; what came out is written down beside it",
    "meta_optimizer=gp": "takes an hour; what came out is written down beside it",
    "houses.csv": "is about a file of the reader's",
    "new.csv": "is about a file of the reader's",
    "train.csv": "is about a file of the reader's",
    "test.csv": "is about a file of the reader's",
    "task.path=photos": "is about pictures of the reader's",
    "task.trusted=": "is about files of the reader's",
    "book.txt": "is about a file of the reader's",
}


@functools.cache
def pages():
    """Return the commands that are run, in order, by page: later ones go on from earlier ones."""
    found = {}
    for parameter in commands():
        page, (words,) = parameter.id.partition(":")[0], parameter.values
        if not any(part in shlex.join(words) for part in LEFT_OUT):
            found.setdefault(page, []).append(words)
    return found


def run(folder, *words):
    """Run a command as a reader would; return the summaries of the runs that it has finished."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("summary.json")}
    command = [sys.executable, "-m", "metaloss", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr[-2000:])
    new = [p for p in folder.rglob("summary.json") if before.get(p) != p.stat().st_mtime_ns]
    found = [json.loads(path.read_text()) for path in new]
    return [summary for summary in found if "metrics" in summary]


def write_wine(folder):
    frame = load_wine(as_frame=True).frame.rename(columns={"target": "kind"})
    frame["kind"] = "kind " + frame["kind"].astype(str)
    frame.to_csv(folder / "wine.csv", index=False)


def test_what_is_left_out_and_what_is_held_is_on_a_page():
    every = [shlex.join(parameter.values[0]) for parameter in commands()]
    ran = [shlex.join(words) for lines in pages().values() for words in lines]
    for part in LEFT_OUT:
        assert any(part in line for line in every), part
    for part in HELD:
        assert any(part in line for line in ran), part
    assert len(ran) >= 20


@pytest.mark.faults
@pytest.mark.parametrize("page", pages())
def test_the_commands_of_a_page_end_as_it_says(page, tmp_path):
    for name, text in plugin_files().items():
        (tmp_path / name).write_text(text)
    write_wine(tmp_path)
    for words in pages()[page]:
        for summary in run(tmp_path, *words):
            assert (summary["status"], summary["learned_nothing"]) == ("ok", False), words
            for part, number in HELD.items():
                if part in shlex.join(words):
                    found = summary["metrics"]["test/error"]
                    assert found == pytest.approx(number, abs=TOLERANCE), words


@pytest.mark.faults
def test_a_moved_loss_and_cross_entropy_are_as_far_apart_as_the_page_says(tmp_path):
    text = " ".join((ROOT / "docs" / "losses.md").read_text("utf-8").split())
    stated = re.search(r"test error of (0\.\d+), where cross-entropy .*? has (0\.\d+)", text)
    teach, export, learn = pages()["losses"][-3:]
    run(tmp_path, *teach)
    run(tmp_path, *export)
    (moved,) = run(tmp_path, *learn)
    (fixed,) = run(tmp_path, "train", "loss=cross_entropy", "schedule=static", "task=mnist1d")
    for summary, number in zip((moved, fixed), stated.groups(), strict=True):
        found = summary["metrics"]["test/error"]
        assert found == pytest.approx(float(number), abs=TOLERANCE)


@pytest.mark.faults
def test_the_demo_ends_as_the_readme_says(tmp_path):
    """Online and cross-entropy on the trusted rows alone: 0.075 and 0.073, far below all rows."""
    text = (ROOT / "README.md").read_text("utf-8")
    learned, trusted = map(float, re.search(r"rows alone \((0\.\d+), (0\.\d+)\)", text).groups())
    run(tmp_path, "compare", "--study", "demo", "demo")
    table = json.loads((tmp_path / "demo" / "table.json").read_text())
    mean = {line["name"]: line["final"]["mean"] for line in table["lines"]}
    assert mean["learned online"] == pytest.approx(learned, abs=TOLERANCE)
    assert mean["cross-entropy, clean rows only"] == pytest.approx(trusted, abs=TOLERANCE)
    assert mean["cross-entropy"] > 2 * mean["learned online"]


@pytest.mark.faults
def test_an_untuned_table_ends_as_the_study_says(tmp_path):
    """Wine with 30 % wrong labels: the mean of ten seeds."""
    text = (ROOT / "docs" / "results" / "own_tables.md").read_text("utf-8")
    (line,) = [row for row in text.splitlines() if row.startswith("| wine, 30 % wrong | 178 |")]
    static, online = (float(re.match(r"[\d.]+", line.split("|")[k].strip())[0]) for k in (3, 7))
    write_wine(tmp_path)
    words = ("task=csv", "task.path=wine.csv", "task.target=kind", "task.label_noise=0.3")
    for schedule, number in (("static", static), ("online", online)):
        found = [
            run(tmp_path, "train", *words, f"schedule={schedule}", "steps=1000", f"seed={seed}")
            for seed in range(10)
        ]
        mean = sum(summary["metrics"]["test/error"] for (summary,) in found) / len(found)
        assert mean == pytest.approx(number, abs=TOLERANCE)
