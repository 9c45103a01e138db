"""What losses ask for, against the closed forms of those that are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from metaloss import registry
from metaloss.core.storage.run_folder import CurvesRow, RunFolder
from metaloss.core.training.curves import loss_curves
from metaloss.losses.scaled import Scaled, ScaledConfig
from metaloss.study.plots import reading_plot
from metaloss.study.plots.reading_plot import plot_readings
from metaloss.study.tables.reading import pull, read_loss, readings_of, to_csv
from metaloss.study.tables.table import Group

P, HALF = 0.05, 0.5


def curves_of(name, link="softmax", **options):
    part = registry.get("loss", name)
    loss = part.build(part.config_class(**options), link=link).double()
    grid, curves = loss_curves(loss, {})
    return np.array(grid), {label: np.array(values) for label, values in curves.items()}


def run_of(*moments, link="softmax"):
    rows = [
        CurvesRow(step=10 + 100 * index, phase="train", grid=grid, curves=curves)
        for index, (grid, curves) in enumerate(moments)
    ]
    return RunFolder(
        path=None, config={}, journal=(), curves=tuple(rows), summary={}, link=link, notes=()
    )


@pytest.mark.parametrize(
    ("name", "options", "pulls"),
    [
        ("cross_entropy", {}, lambda p: 1 - p),
        ("gce", {"q": 0.7}, lambda p: p**0.7 * (1 - p)),
        ("mae", {}, lambda p: 2 * p * (1 - p)),
        ("label_smoothing", {"smoothing": 0.2}, lambda p: 0.9 - p),
        ("focal", {"gamma": 2.0}, lambda p: (1 - p) ** 2 * (1 - p - 2 * p * np.log(p))),
    ],
)
def test_the_pull_is_the_force_on_the_labelled_output(name, options, pulls):
    grid, force = pull(*curves_of(name, **options), "softmax")
    inner = (grid > P / 2) & (grid < 1 - P / 2)
    np.testing.assert_allclose(force[inner], pulls(grid[inner]), rtol=0.1, atol=0.01)
    read = read_loss(run_of(curves_of(name, **options)))
    assert read["contradicted"][0] == pytest.approx(pulls(P) / pulls(HALF), rel=0.05)
    assert read["rests_at"][0] == pytest.approx(0.9 if name == "label_smoothing" else 1, abs=0.003)


def test_the_pull_is_what_autograd_says():
    loss = registry.get("loss", "gce").build(registry.get("loss", "gce").config_class())
    places, force = pull(*curves_of("gce"), "softmax")
    logits = torch.stack([torch.logit(torch.tensor(places)), torch.zeros(len(places))], 1)
    logits.requires_grad_()
    loss(logits, torch.zeros(len(places), dtype=torch.int64)).backward()
    exact = -logits.grad[:, 0].numpy() * len(places)
    np.testing.assert_allclose(force[3:-3], exact[3:-3], rtol=0.03)


@pytest.mark.parametrize(("name", "ratio"), [("mse", 5), ("mae", 1)])
def test_an_error_is_pulled_by_its_slope(name, ratio):
    read = read_loss(run_of(curves_of(name, "identity"), link="identity"))
    assert read["contradicted"][0] == pytest.approx(ratio)
    assert read["rests_at"][0] == 0


def test_the_size_is_relative_to_the_first_step():
    moments = []
    for scale in (0.5, 1.0, 2.0):
        loss = Scaled(ScaledConfig(scale=scale)).double()
        grid, curves = loss_curves(loss, dict(loss.named_parameters()))
        moments.append((np.array(grid), {label: np.array(v) for label, v in curves.items()}))
    read = read_loss(run_of(*moments))
    np.testing.assert_allclose(read["size"], [1, 2, 4], rtol=1e-9)
    assert np.ptp(read["contradicted"]) < 1e-9
    assert read["step"].tolist() == [10, 110, 210]


def test_what_cannot_be_read_is_left_out():
    grid, curves = curves_of("mae")
    broken = {label: np.full_like(values, np.nan) for label, values in curves.items()}
    upside_down = {label: -values for label, values in curves.items()}
    read = read_loss(run_of((grid, curves), (grid, broken), (grid, upside_down)))
    assert read["step"].tolist() == [10]
    assert read_loss(run_of((grid, broken))).empty
    assert read_loss(run_of((grid, curves), link="sigmoid")).empty


def test_rows_whose_loss_moves_become_lines_and_a_picture(tmp_path):
    moving, still = [curves_of("cross_entropy"), curves_of("gce")], [curves_of("mae")] * 2
    groups = [
        Group(name=name, static=static, runs={seed: run_of(*moments) for seed in (0, 1)})
        for name, static, moments in (
            (
                "online",
                False,
                [moving[0], (moving[1][0], {k: 3 * v for k, v in moving[1][1].items()})],
            ),
            ("offline", False, still),
            ("static", True, moving),
        )
    ]
    readings = readings_of(groups)
    assert {*zip(readings["row"], readings["run"], strict=True)} == {("online", 0), ("online", 1)}
    head, first, *rest = to_csv(readings).splitlines()
    assert head == "row,run,step,size,contradicted,rests_at"
    assert first.startswith("online,0,10,1,1.9")
    assert len(rest) == 3
    for regression in (False, True):
        path = plot_readings(readings, tmp_path / "learned.png", regression=regression)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_row_has_the_same_colour_in_the_pictures_of_all_blocks(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(reading_plot, "save", lambda figure, path: figures.append(figure))
    reading = read_loss(run_of(curves_of("cross_entropy"), curves_of("gce")))
    study = ("online", "online, without a start", "online, a learned rate")
    for rows in (study, study[::2], study[1:]):
        readings = pd.concat(reading.assign(row=row, run=0) for row in rows)
        plot_readings(readings, tmp_path / "learned.png", rows=study)
    pens = {}
    for figure in figures:
        (legend,) = figure.legends
        for line, text in zip(legend.get_lines(), legend.get_texts(), strict=True):
            pens.setdefault(text.get_text(), set()).add(line.get_color())
    assert pens.keys() == set(study)
    assert [len(colors) for colors in pens.values()] == [1, 1, 1]


def test_every_row_has_a_line_of_its_own(tmp_path, monkeypatch):
    figures = []

    def keep(figure, path):
        figures.append(figure)
        return path

    monkeypatch.setattr(reading_plot, "save", keep)
    moments = [curves_of("cross_entropy"), curves_of("gce")]
    reading = read_loss(run_of(*moments))
    readings = pd.concat(reading.assign(row=f"row {number}", run=0) for number in range(9))
    plot_readings(readings, tmp_path / "learned.png")
    (legend,) = figures[0].legends
    pens = [(line.get_color(), str(line.get_linestyle())) for line in legend.get_lines()]
    assert len(set(pens)) == len(pens) == 9
    lines = figures[0].axes[0].get_lines()[:9]
    assert [(line.get_color(), str(line.get_linestyle())) for line in lines] == pens
