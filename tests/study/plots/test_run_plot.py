import json
import struct
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from metaloss.core.storage.run_folder import read_run
from metaloss.errors import MetalossError
from metaloss.losses import Symbolic
from metaloss.losses.export import DESCRIPTION, WEIGHTS, pack
from metaloss.losses.symbolic import SymbolicConfig
from metaloss.study.plots import run_plot, style
from metaloss.study.plots.comparison_plot import plot_comparison
from metaloss.study.plots.loss_plot import loss_over_time, reduced
from metaloss.study.plots.run_plot import plot_run
from metaloss.study.tables.table import Group, make_table

STATIC = ("task=digits", "schedule=static", "loss=cross_entropy", "steps=400", "tracker=[]")
ONLINE = ("task=digits", "schedule=online", "loss=mlp", "steps=400", "tracker=[]")
OFFLINE = (
    "task=digits", "schedule=offline", "loss=mlp", "steps=400", "tracker=[]",
    "schedule.offline_steps=300",
)  # fmt: skip
EVENT = {"step": 2200, "reason": "3 bad steps", "action": "restore"}


def size(path):
    return struct.unpack(">II", path.read_bytes()[16:24])


def ink(path):
    """The share of pixels that are not white: what was really drawn."""
    return float((imread(path)[..., :3] < 0.97).any(axis=-1).mean())


def groups_of(tmp_path, runs, rows):
    groups = []
    for name, words in rows.items():
        found = {}
        for seed in (0, 1):
            folder = tmp_path / name / str(seed)
            runs.write_run(folder, [*words, f"seed={seed}"])
            found[seed] = read_run(folder)
        groups.append(Group(name=name, static=words is STATIC, runs=found))
    return groups


@pytest.mark.parametrize("expression", ["square(t - p)", "+".join(["log(t)*tanh(p)"] * 9)])
def test_a_loss_that_is_a_short_formula_stands_above_its_curves(
    expression, tmp_path, runs, monkeypatch
):
    runs.write_run(tmp_path / "run", ONLINE)
    loss = Symbolic(SymbolicConfig(expression=expression, noise=0.1))
    weights, description = pack(loss, dict(loss.named_parameters()), {})
    (tmp_path / "run" / WEIGHTS).write_bytes(weights)
    (tmp_path / "run" / DESCRIPTION).write_bytes(description)
    figures = []
    monkeypatch.setattr(run_plot, "save", lambda figure, path: figures.append(figure))
    plot_run(tmp_path / "run")
    texts = [text.get_text() for text in figures[-1].texts]
    short = len(loss.latex()) < 100
    assert short is (expression == "square(t - p)")
    assert any(loss.latex() in text for text in texts) is short


def test_a_run_has_two_pictures_with_something_on_them(tmp_path, runs):
    runs.write_run(tmp_path / "run", ONLINE, runs.Shape(events=(EVENT,)))
    settings = dict(matplotlib.rcParams)
    files = plot_run(tmp_path / "run", tmp_path / "out")
    assert [file.name for file in files] == ["learning.png", "loss.png"]
    assert all(size(file)[0] == 1440 for file in files)
    assert all(0.01 < ink(file) < 0.6 for file in files)
    assert all(imread(file).std() > 0.02 for file in files)
    assert dict(matplotlib.rcParams) == settings, "no global setting is changed"


def test_the_same_run_gives_the_same_bytes(tmp_path, runs):
    runs.write_run(tmp_path / "run", OFFLINE)
    first = [file.read_bytes() for file in plot_run(tmp_path / "run", tmp_path / "a")]
    second = [file.read_bytes() for file in plot_run(tmp_path / "run", tmp_path / "b")]
    assert first == second


def test_guard_events_are_seen(tmp_path, runs):
    for name, events in {"calm": (), "mended": (EVENT,)}.items():
        runs.write_run(tmp_path / name, ONLINE, runs.Shape(events=events))
    calm, mended = (
        imread(plot_run(tmp_path / name, tmp_path / f"{name}-out")[0])
        for name in ("calm", "mended")
    )
    violet = np.array([0x5D, 0x3A, 0x9B]) / 255

    def marks(picture):
        return int((np.abs(picture[..., :3] - violet).max(-1) < 0.02).sum())

    assert marks(mended) > marks(calm) + 100


def test_an_unfinished_damaged_run_is_drawn_as_far_as_it_goes(tmp_path, runs):
    runs.write_run(tmp_path / "run", OFFLINE)
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "config.yaml").write_text("{")
    journal = tmp_path / "run" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-700])
    files = plot_run(tmp_path / "run")
    assert [file.parent for file in files] == [tmp_path / "run"] * 2
    assert all(ink(file) > 0.01 for file in files)


def test_numbers_that_are_not_finite_do_not_stop_the_picture(tmp_path, runs):
    runs.write_run(tmp_path / "run", ONLINE)
    with (tmp_path / "run" / "journal.jsonl").open("a") as file:
        for step in (450, 500):
            row = {"step": 2000 + step, "phase": "train", "phase_step": step, "train/loss": None}
            file.write(json.dumps(row | {"meta/other": None}) + "\n")
    assert len(plot_run(tmp_path / "run")) == 2


def test_a_run_with_nothing_logged_says_so(tmp_path, runs):
    runs.write_run(tmp_path / "run", ONLINE)
    (tmp_path / "run" / "journal.jsonl").write_text("")
    (tmp_path / "run" / "curves.jsonl").write_text("")
    with pytest.raises(MetalossError, match="nothing to draw yet"):
        plot_run(tmp_path / "run")


def test_a_comparison_shows_the_loss_beside_the_curves(tmp_path, runs):
    groups = groups_of(tmp_path, runs, {"ce": STATIC, "offline": OFFLINE, "online": ONLINE})
    path = plot_comparison(groups, make_table(groups), tmp_path / "a.png", title="digits")
    again = plot_comparison(groups, make_table(groups), tmp_path / "b.png", title="digits")
    assert size(path) == (1440, 640)
    assert path.read_bytes() == again.read_bytes()
    picture = imread(path)
    assert (picture[:, :720, :3] < 0.9).any(-1).mean() > 0.01
    assert (picture[:, 940:, :3] < 0.9).any(-1).mean() > 0.01


def test_a_comparison_without_a_learned_loss_has_one_panel(tmp_path, runs):
    groups = groups_of(tmp_path, runs, {"ce": STATIC})
    path = plot_comparison(groups, make_table(groups), tmp_path / "a.png")
    assert size(path) == (1200, 640)
    assert ink(path) > 0.01


def test_a_comparison_is_drawn_without_a_single_journal(tmp_path, runs):
    groups = groups_of(tmp_path, runs, {"ce": STATIC, "online": ONLINE})
    for folder in tmp_path.glob("*/*"):
        (folder / "journal.jsonl").unlink()
    lost = [
        replace(group, runs={seed: read_run(run.path) for seed, run in group.runs.items()})
        for group in groups
    ]
    assert ink(plot_comparison(lost, make_table(lost), tmp_path / "a.png")) > 0.01


def test_many_rows_find_room(tmp_path, runs):
    groups = groups_of(tmp_path, runs, {"ce": STATIC, "online": ONLINE})
    many = [
        Group(name=" ".join(f"row {i} with a long name".split() * 2), static=i < 5, runs=one.runs)
        for i, one in enumerate(groups * 4)
    ]
    path = plot_comparison(many, make_table(many), tmp_path / "a.png")
    assert ink(path) > 0.01
    # The picture is as high as their names need: nothing touches its upper edge.
    assert size(path)[1] > 640
    assert (imread(path)[:20, :, :3] > 0.9).all()


def test_of_many_rows_seven_are_named_and_the_others_are_pale(tmp_path, runs, monkeypatch):
    groups = groups_of(tmp_path, runs, {"ce": STATIC, "online": ONLINE})
    names = [f"row {i}" for i in range(14)]
    many = [Group(name=n, static=i < 12, runs=groups[i % 2].runs) for i, n in enumerate(names)]
    table = make_table(many, reference="row 3", aside=["row 13"])
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, path: figures.append(figure))
    plot_comparison(many, table, tmp_path / "a.png")
    axes = figures[0].axes[0]
    shown = {text.get_text().rsplit("  ", 1)[0] for text in axes.texts}
    assert len(shown) == 7
    assert {"row 0", "row 3", table.best} <= shown
    assert "row 13" not in shown
    curves = [line.get_color() for line in axes.lines if len(line.get_xdata()) > 4]
    assert curves.count(style.PALE) == 7
    assert len(set(curves) - {style.PALE}) == 7
    assert "pale: 7 more rows, which the table has" in [t.get_text() for t in figures[0].texts]


def test_the_loss_is_shown_where_it_moves(tmp_path, runs):
    runs.write_run(tmp_path / "online", ONLINE)
    runs.write_run(tmp_path / "offline", OFFLINE)
    online = loss_over_time(read_run(tmp_path / "online"))
    assert (online.phase, online.steps[0], online.steps[-1]) == ("train", 0, 400)
    offline = loss_over_time(read_run(tmp_path / "offline"))
    assert (offline.phase, offline.steps[0], offline.steps[-1]) == ("offline", 50, 300)
    assert offline.moves


def test_what_moves_no_gradient_is_taken_out():
    p = np.linspace(0.005, 0.995, 101)
    seen = {"t=0": 7.0 + 1300 * p, "t=1": -np.log(p) - 20 + 1300 * p}
    shown = reduced(p, seen, softmax=True)
    np.testing.assert_allclose(shown["t=0"], 0, atol=1e-9)
    np.testing.assert_allclose(shown["t=1"], -np.log(p) + np.log(p[-1]), atol=1e-9)
    other = reduced(p, seen, softmax=False)
    np.testing.assert_allclose(other["t=0"], 1300 * (p - p[0]), atol=1e-9)


def test_a_common_slope_moves_no_gradient_through_softmax():
    # The claim behind the picture, by autograd.
    import torch

    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.nn.functional.one_hot(torch.arange(5) % 4, 4).double()

    def slope(tilt):
        z = logits.clone().requires_grad_()
        p = z.softmax(1)
        ((p - target) ** 2 + tilt * p + 3 * target).sum().backward()
        return z.grad

    assert slope(0.0).abs().max() > 0.01
    torch.testing.assert_close(slope(1300.0), slope(0.0), rtol=0, atol=1e-10)


def test_regression_has_one_target(tmp_path, runs):
    runs.write_run(tmp_path / "run", ONLINE)
    path = tmp_path / "run" / "curves.jsonl"
    grid = np.linspace(-3, 3, 101)
    rows = [
        {"step": 2000 + s, "phase": "train", "grid": grid.tolist(),
         "curves": {"t=0": (grid**2 * (1 + s)).tolist()}}
        for s in (0, 100, 200)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loss = loss_over_time(read_run(tmp_path / "run"))
    np.testing.assert_allclose(loss.curves["t=0"][0], grid**2, atol=1e-12)
    assert ink(plot_run(tmp_path / "run")[1]) > 0.01
