import pytest

from metaloss.errors import MetalossError
from metaloss.study.outputs import print_table
from metaloss.study.tables.groups import distinguishing_names, groups_of_folders, runs_in
from metaloss.tracking.quiet_console import QuietConsole

CE = ("task=digits", "schedule=static", "loss=cross_entropy", "steps=200", "tracker=[]")
ONLINE = ("task=digits", "schedule=online", "loss=mlp", "steps=200", "tracker=[]")


def test_folders_are_grouped_by_config_without_the_seed(tmp_path, runs):
    folders = []
    for name, words, seed in [("a", ONLINE, 1), ("b", CE, 0), ("c", ONLINE, 0)]:
        runs.write_run(tmp_path / name, [*words, f"seed={seed}", f"output={name}"])
        folders.append(tmp_path / name)
    groups, notes = groups_of_folders(folders)
    assert [group.name for group in groups] == [
        "loss=mlp, schedule=online",
        "loss=cross_entropy, schedule=static",
    ]
    assert [group.static for group in groups] == [False, True]
    assert [run.path.name for run in groups[0].runs.values()] == ["c", "a"]
    assert list(groups[0].runs) == [0, 1]
    assert notes == []


def test_unfinished_folders_are_left_out_with_a_note(tmp_path, runs):
    for name in ("a", "b"):
        runs.write_run(tmp_path / name, [*CE, f"seed={len(name)}"])
    (tmp_path / "b" / "summary.json").unlink()
    groups, notes = groups_of_folders([tmp_path / "a", tmp_path / "b"])
    assert len(groups) == 1
    assert len(groups[0].runs) == 1
    assert notes == [f"{tmp_path / 'b'}: not finished (no summary.json)"]


def test_the_same_run_twice_is_an_error(tmp_path, runs):
    for name in ("a", "b"):
        runs.write_run(tmp_path / name, [*CE, "seed=0"])
    with pytest.raises(MetalossError, match="are the same run twice"):
        groups_of_folders([tmp_path / "a", tmp_path / "b"])


def test_a_config_that_cannot_be_read_is_an_error(tmp_path, runs):
    runs.write_run(tmp_path / "a", CE)
    (tmp_path / "a" / "config.yaml").write_text("steps: [")
    with pytest.raises(MetalossError, match=r"a: its config.yaml cannot be read: .*not plain YAML"):
        groups_of_folders([tmp_path / "a"])


def test_names_tell_what_differs_among_runs_of_the_same_part():
    static = {"schedule.name": "static", "schedule.early_stopping": 0, "steps": 5}
    stopped = static | {"schedule.early_stopping": 3}
    online = {"schedule.name": "online", "schedule.unroll": 1, "steps": 5}
    assert distinguishing_names([static, stopped, online]) == [
        "schedule=static, schedule.early_stopping=0",
        "schedule=static, schedule.early_stopping=3",
        "schedule=online",
    ]


def test_one_group_alone_is_named_by_what_it_is():
    assert distinguishing_names([{"schedule.name": "online", "loss.name": "mlp"}]) == [
        "schedule=online, loss=mlp"
    ]
    assert distinguishing_names([]) == []


def test_a_folder_of_runs_stands_for_them_in_their_order(tmp_path):
    for name in ("10", "2", "row/seed0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("seed: 0")
    found = [str(path.relative_to(tmp_path)) for path in runs_in(tmp_path)]
    assert found == ["2", "10", "row/seed0"]
    assert runs_in(tmp_path / "2") == [tmp_path / "2"]
    # The first pass of two, of a single run and of a group, is no run beside the second.
    for name in ("2/first", "row/first/seed0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").write_text("seed: 0")
        (tmp_path / name.partition("/")[0] / "passes.yaml").write_text("seed: 0")
    assert [str(path.relative_to(tmp_path)) for path in runs_in(tmp_path)] == found
    assert runs_in(tmp_path / "row/first") == [tmp_path / "row/first/seed0"]
    assert runs_in(tmp_path / "none") == [tmp_path / "none"]


def test_the_table_of_a_sweep_is_printed(tmp_path, runs, capsys):
    for name, words in (("0", CE), ("1", ONLINE)):
        runs.write_run(tmp_path / name, [*words, "seed=0"])
    print_table(tmp_path, QuietConsole())
    assert "| loss=mlp, schedule=online" in capsys.readouterr().out
