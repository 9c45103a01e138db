"""``metaloss check`` and the commands that hand their arguments on."""

import sys
import types
from types import SimpleNamespace

import pytest


@pytest.fixture
def checks(monkeypatch):
    """Stand in for ``metaloss.testing``."""
    fake = types.ModuleType("metaloss.testing")
    fake.results = [SimpleNamespace(name="finite", passed=True, message="")]
    fake.check_part = lambda group, name: fake.results
    monkeypatch.setitem(sys.modules, "metaloss.testing", fake)
    return fake


def test_a_part_that_passes(cli, checks):
    status, out, _ = cli("check", "loss", "mlp")
    assert (status, out) == (0, "passed  finite\nloss=mlp: 1 of 1 checks passed\n")


def test_a_part_that_fails_says_why_and_ends_with_1(cli, checks):
    checks.results.append(SimpleNamespace(name="alive", passed=False, message="φ is dead"))
    status, out, _ = cli("check", "loss", "mlp")
    assert status == 1
    assert out.splitlines()[1:] == [
        "FAILED  alive",
        "        φ is dead",
        "loss=mlp: 1 of 2 checks passed",
    ]


def test_compare_hands_everything_on(cli, monkeypatch, plugin, tmp_path):
    from metaloss.study import compare

    asked = []
    monkeypatch.setattr(compare, "run_request", asked.append)
    status, _, _ = cli(
        *("compare", "out", "task=digits", "--row", "a: loss=mlp", "--row", "b: loss=mse"),
        *("--seeds", "0-2", "--reference", "b", "--jobs", 3, "--plugin", plugin),
    )
    assert status == 0
    [request] = asked
    assert (str(request.out), request.words, request.seeds) == ("out", ("task=digits",), "0-2")
    assert request.rows == ("a: loss=mlp", "b: loss=mse")
    assert (request.options.jobs, request.options.reference) == (3, "b")
    assert request.options.arguments == ("--plugin", str(plugin))


def test_compare_takes_folders_of_runs(cli, monkeypatch, tmp_path):
    from metaloss.study import compare

    asked = []
    monkeypatch.setattr(compare, "run_request", asked.append)
    assert cli("compare", "out", "runs/a", "runs/b", "--runs", "runs/c")[0] == 0
    assert [str(path) for path in asked[0].runs] == ["runs/c", "runs/a", "runs/b"]
    assert asked[0].words == ()


def test_plot_names_its_files(cli, monkeypatch, tmp_path):
    from metaloss.study.plots import run_plot

    monkeypatch.setattr(run_plot, "plot_run", lambda folder, out: [folder / "plots" / "loss.png"])
    assert cli("plot", tmp_path) == (0, f"{tmp_path}/plots/loss.png\n", "")


def test_plot_of_no_run_is_one_line_and_2(cli, tmp_path):
    status, _, err = cli("plot", tmp_path)
    assert status == 2
    assert err.startswith(f"metaloss: error: {tmp_path} is not the folder of a run")
