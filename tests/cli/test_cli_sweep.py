"""``--multirun``: Hydra's runner, a folder for each job, the worst job's status."""

import json
import logging
import os
import subprocess
import sys

import pytest

from metaloss.compose import compose, to_yaml


def sweep(cli, plugin, *words):
    return cli("train", "--multirun", "--plugin", plugin, "tracker=[]", *words)


def ledger(folder):
    return [json.loads(line) for line in (folder / "jobs.jsonl").read_text().splitlines()]


def seen(folder, job):
    return json.loads((folder / str(job) / "seen.json").read_text())


def test_each_combination_runs_in_its_own_folder(cli, fake_core, tmp_path):
    folder = tmp_path / "out"
    status, out, err = sweep(cli, fake_core, "seed=0,1", "model=mlp,tiny", "output=out")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"{folder}: 4 jobs, 4 of them finished"
    found = [seen(folder, job) for job in range(4)]
    assert [(job["seed"], job["model"]) for job in found] == [
        (0, "mlp"), (0, "tiny"), (1, "mlp"), (1, "tiny"),
    ]  # fmt: skip
    assert all(list(job["plugins"]) == [str(fake_core)] for job in found)
    assert [line["folder"] for line in ledger(folder)] == [str(folder / str(j)) for j in range(4)]


def test_nothing_but_the_runs_own_files_lies_in_a_jobs_folder(cli, fake_core, tmp_path):
    sweep(cli, fake_core, "seed=0", "output=out")
    assert [path.name for path in (tmp_path / "out" / "0").iterdir()] == ["seen.json"]


@pytest.mark.parametrize(
    ("seeds", "status", "statuses"),
    [("0,3,2", 3, [0, 3, 2]), ("2,0", 2, [2, 0]), ("0,1", 0, [0, 0])],
)
def test_a_sweep_ends_with_its_worst_jobs_status(seeds, status, statuses, cli, fake_core, tmp_path):
    got, _, err = sweep(cli, fake_core, f"seed={seeds}", "output=out")
    assert got == status
    assert [line["status"] for line in ledger(tmp_path / "out")] == statuses
    if 2 in statuses:
        assert err == f"metaloss: error: job {statuses.index(2)}: no such luck\n"


def test_a_pattern_finds_parts_that_no_word_names(cli, fake_core, tmp_path):
    status, _, _ = sweep(cli, fake_core, "model=glob(t*)", "seed=range(0,2)", "output=out")
    assert status == 0
    found = [seen(tmp_path / "out", job) for job in range(2)]
    assert [(job["model"], job["seed"]) for job in found] == [("tiny", 0), ("tiny", 1)]


def test_ctrl_c_stops_the_sweep(cli, fake_core, tmp_path):
    status, _, err = sweep(cli, fake_core, "seed=0,130,1", "output=out")
    assert (status, err) == (130, "metaloss: interrupted\n")
    assert [line["status"] for line in ledger(tmp_path / "out")] == [0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seed=0,few"], "seed=few: expected a whole number"),
        (
            ["loss=mlp,mse", "loss.hidden=[3]"],
            "unknown option 'loss.hidden' of loss=mse: (allowed: none)",
        ),
        (["output=a,b"], "output has several values: expected one folder"),
        (["hydra/launcher=bassic"], "unknown hydra/launcher 'bassic': did you mean 'basic'? "),
        (["hydra/launcher=rey"], "unknown hydra/launcher 'rey': did you mean 'ray'? (allowed: b"),
        (["seed=1,2", "hydra.sweep.dir=x"], "'hydra.sweep.dir=x': unknown setting of Hydra "),
    ],
)
def test_a_wrong_word_is_told_before_any_job_begins(words, message, cli, fake_core, tmp_path):
    status, out, err = sweep(cli, fake_core, *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"metaloss: error: {message}")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob("seen.json"))


def test_a_folder_with_something_in_it_is_not_taken(cli, fake_core, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    status, _, err = sweep(cli, fake_core, "seed=0,1", "output=out")
    assert status == 2
    assert err == (
        f"metaloss: error: output={tmp_path / 'out'}: exists and is not empty; give a new folder\n"
    )


def test_a_file_holds_for_the_jobs_that_keep_its_choice(cli, fake_core, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(compose(["inner=sgd", "inner.lr=0.125", "tracker=[]"])))
    status, out, _ = cli(
        "train",
        "--multirun",
        "--plugin",
        fake_core,
        "--config",
        path,
        "inner=sgd,adam",
        "output=out",
    )
    assert status == 0
    lines = out.splitlines()
    assert lines[0].endswith("/out/0: ok, valid/error=0.125, test/error=0.5")
    assert lines[1].endswith("/out/1: ok, valid/error=0.001, test/error=0.5")


def test_a_sweep_leaves_the_process_as_it_was(cli, fake_core):
    before = (os.getcwd(), list(logging.getLogger().handlers), logging.getLogger().level)
    sweep(cli, fake_core, "seed=0,1")
    assert (os.getcwd(), list(logging.getLogger().handlers), logging.getLogger().level) == before
    assert compose(["tracker=[]"]).seed == 0


def test_workers_of_the_joblib_launcher_know_the_plugin_and_report(fake_core, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "metaloss", "train", "--multirun", "--plugin", str(fake_core)),
            *("tracker=[]", "model=tiny", "model.width=4", "seed=0,3", "output=out"),
            *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3, done.stderr
    folder = tmp_path / "out"
    assert sorted(line["status"] for line in ledger(folder)) == [0, 3]
    assert {seen(folder, job)["model"] for job in (0, 1)} == {"tiny"}
    assert len({seen(folder, job)["pid"] for job in (0, 1)}) == 2
