import math

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon

from metaloss.study.outputs import write_summary
from metaloss.study.plots import overview_plot, rank_plot
from metaloss.study.plots.overview_plot import plot_overview
from metaloss.study.plots.rank_plot import plot_ranks
from metaloss.study.plots.style import INK
from metaloss.study.tables.ranks import Ranks
from metaloss.study.tables.summary import summarize

NAMES = [
    "online", "offline", "cross-entropy", "cross-entropy, early stopping", "label smoothing 0.1",
    "generalized cross-entropy", "focal, γ = 2", "mean absolute error", "taylor, online",
    "taylor, offline", "symbolic (EvoMAL), online", "symbolic (EvoMAL), offline",
]  # fmt: skip
RANKS = Ranks(
    means={name: 2.0 + 0.7 * index for index, name in enumerate(NAMES)},
    blocks=tuple("abcdef"),
    critical=3.1,
    statistic=40.0,
    p=1e-4,
)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, saved all the same."""
    figures = []
    for module in (rank_plot, overview_plot):
        save = module.save
        monkeypatch.setattr(
            module,
            "save",
            lambda figure, path, save=save: (figures.append(figure), save(figure, path))[1],
        )
    return figures


def texts(figure):
    return [text for axes in figure.axes for text in axes.texts] + figure.texts


def words(figure):
    return [text.get_text() for text in texts(figure)]


def bold(figure):
    """The texts of the first panel that are bold."""
    return {text.get_text() for text in figure.axes[0].texts if text.get_fontweight() == "bold"}


def boxes(figure):
    renderer = figure.canvas.get_renderer()
    return {text.get_text(): text.get_window_extent(renderer) for text in texts(figure)}


def test_ranks_are_labelled_with_their_rows(tmp_path, drawn):
    path = plot_ranks({"all": RANKS}, tmp_path / "ranks.png", reference="online")
    assert path.stat().st_size > 10_000
    found = words(drawn[0])
    assert set(NAMES) <= set(found)
    assert {f"{mean:.2f}" for mean in RANKS.means.values()} <= set(found)
    assert {"CD = 3.10", "12 rows, 6 blocks · Friedman p < 0.001", "all", "best"} <= set(found)


def test_the_best_rank_is_at_the_left(tmp_path, drawn):
    plot_ranks({"all": RANKS}, tmp_path / "ranks.png", reference="online")
    found = boxes(drawn[0])
    assert found["1"].x0 < found["12"].x0
    assert found["online"].x1 < found["1"].x0
    assert found["symbolic (EvoMAL), offline"].x0 > found["12"].x1


def test_no_label_lies_over_another_or_beyond_the_edge(tmp_path, drawn):
    plot_ranks({"all": RANKS, "again": RANKS}, tmp_path / "ranks.png", reference="online")
    figure = drawn[0]
    renderer = figure.canvas.get_renderer()
    found = [text.get_window_extent(renderer) for text in texts(figure)]
    assert len(found) > 60
    for index, box in enumerate(found):
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in found[:index])


def test_a_difference_longer_than_the_axis_says_so(tmp_path, drawn):
    few = Ranks(means={"a": 1.0, "b": 2.0}, blocks=("x", "y"), critical=1.4, statistic=None, p=None)
    plot_ranks({"all": few}, tmp_path / "ranks.png", reference="a")
    assert "CD = 1.40, longer than the axis" in words(drawn[0])
    assert "2 rows, 2 blocks" in words(drawn[0])


SEEDS = np.linspace(0.10, 0.16, 7)


@pytest.fixture
def tables(block):
    return {
        "easy": block({"ours": SEEDS, "worse": SEEDS + 0.1, "near": SEEDS[::-1] + 0.001}),
        "hard": block({"ours": SEEDS * 4, "worse": SEEDS * 4.1, "failed": [math.nan] * 7}),
        "prices": block(
            {"ours": SEEDS * 1e4, "ablated": SEEDS * 9e3}, metric="test/mse", aside=["ablated"]
        ),
    }


def test_the_overview_shows_every_mean(tmp_path, drawn, tables):
    path = plot_overview(tables, tmp_path / "overview.png", reference="ours")
    assert path.stat().st_size > 10_000
    found = words(drawn[0])
    rows = {"ours", "worse", "near", "failed", "ablated"}
    assert rows | {"easy", "hard", "prices [mse]"} <= set(found)
    assert {"0.130", "0.230", "0.131", "0.520", "0.533", "–", "1300", "1170"} <= set(found)


def test_the_best_of_a_block_is_bold_unless_it_is_aside(tmp_path, drawn, tables):
    plot_overview(tables, tmp_path / "o.png", reference="ours")
    assert bold(drawn[0]) == {"ours", "0.130", "0.520", "1300"}


def test_a_row_that_lost_runs_is_not_the_best_of_its_block_and_has_a_star(tmp_path, drawn, block):
    tables = {"a": block({"ours": SEEDS, "lucky": [*SEEDS[:6] / 2, math.nan]})}
    assert tables["a"].lines[1].p_holm < 0.05
    plot_overview(tables, tmp_path / "o.png", reference="ours")
    assert bold(drawn[0]) == {"ours", "0.130"}
    assert "0.0625*" in words(drawn[0])
    assert not [patch for patch in drawn[0].axes[0].patches if type(patch) is Polygon]


def test_what_differs_significantly_is_marked(tmp_path, drawn, tables):
    plot_overview(tables, tmp_path / "o.png", reference="ours")
    marks = [patch for patch in drawn[0].axes[0].patches if type(patch) is Polygon]
    # Downwards (the axis points down): worse in two blocks; upwards: better in the third.
    downwards = [patch.get_xy()[2, 1] > patch.get_xy()[0, 1] for patch in marks]
    assert downwards == [True, True, False]


def test_colours_follow_the_goal(block):
    lower = block({"ours": [0.2], "x": [0.4]})
    higher = block({"ours": [0.4], "x": [0.2]}, goal="max")
    for table in (lower, higher):
        assert overview_plot.log_ratios(table, "ours") == pytest.approx(
            {"ours": 0.0, "x": math.log(2)}
        )


@pytest.mark.parametrize(
    ("ours", "x", "expected"),
    [(0.0, 0.0, 0.0), (0.0, 0.1, math.inf), (0.1, 0.0, -math.inf), (-2.0, -1.0, math.log(2)),
     (-1.0, 1.0, math.nan), (math.nan, 1.0, math.nan)],
)  # fmt: skip
def test_ratios_at_the_edges(block, ours, x, expected):
    found = overview_plot.log_ratios(block({"ours": [ours], "x": [x]}), "ours")["x"]
    assert found == pytest.approx(expected, nan_ok=True)


def test_dark_text_can_be_read_on_every_colour():
    def luminance(color):
        channels = np.array(to_rgb(color))
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return float(linear @ [0.2126, 0.7152, 0.0722])

    ink = luminance(INK) + 0.05
    assert min(luminance(overview_plot._MAP(x)) + 0.05 for x in np.linspace(0, 1, 65)) / ink > 4.5


def test_a_large_study_fits(tmp_path, block, monkeypatch):
    figures = []
    monkeypatch.setattr(overview_plot, "save", lambda figure, path: figures.append(figure))
    draws = np.random.default_rng(0)
    names = [*NAMES, "squared error", "polyloss, tuned on validation", "hinge", "a", "b"]
    tables = {
        f"ResNet-18, 40 % wrong labels, long tail {index}": block(
            {name: draws.uniform(0.01, 0.9, 2) for name in names}
        )
        for index in range(34)
    }
    plot_overview(tables, tmp_path / "o.png", reference="online")
    (figure,) = figures
    # The reference and eight others in each panel; the last axes are the key's.
    panels = figure.axes[:-1]
    assert [len(panel.texts) for panel in panels] == [34 * 9 + 34 + 9] * 2
    assert figure.get_figwidth() <= 9.6, "numbers can be read at the width of a page"
    cells = [text for panel in panels for text in panel.texts]
    renderer = figure.canvas.get_renderer()
    for text in cells:
        box = text.get_window_extent(renderer)
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1


def test_files_are_the_same_bytes_again(tmp_path, tables):
    before = dict(matplotlib.rcParams)
    summaries = summarize(tables)
    files = write_summary(summaries, tables, tmp_path)
    assert [file.name for file in files] == ["summary.md", "summary.csv", "overview.png"]
    first = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_summary(summaries, tables, tmp_path)] == first
    assert dict(matplotlib.rcParams) == before
