"""The study's page says what its numbers say, and leaves nothing out."""

import csv
from pathlib import Path

import pytest

from metaloss.study.spec.study_file import load_study
from metaloss.study.tables.statistics import paired_wilcoxon

RESULTS = Path(__file__).parents[2] / "docs" / "results"
NAMES = ("embedded", "embedded_blocks", "embedded_clean", "rate_or_shape", "own_tables")
PAGES = "\n".join((RESULTS / f"{name}.md").read_text("utf-8") for name in NAMES)
# Sentences, wherever their lines break.
TEXT = " ".join(PAGES.split())
README = RESULTS.parents[1] / "README.md"
ONLINE_BOTH, STATIC_BOTH = "online, train+validation", "static, train+validation"
SMOOTHED = "online, smoothed judges"
FIXED_AND_OFFLINE = (
    "static",
    "static, early stopping",
    "label smoothing",
    "focal",
    "absolute error",
    "generalised cross-entropy",
    "logit adjustment",
    "offline, ML³",
    "offline, imitate",
)


def read(name):
    """Return a file's lines by block and row."""
    with (RESULTS / name).open(newline="") as file:
        return {(line["block"], line["row"]): line for line in csv.DictReader(file)}


def runs(name):
    """Return every run's number by block and row, in the order of the seeds."""
    return {
        key: [float(value) for name, value in line.items() if name.startswith("seed ") and value]
        for key, line in read(name).items()
    }


def table(*head):
    """Return the cells of the table of the page that has such a head."""
    lines = [line.strip("| ").split(" | ") for line in PAGES.split("\n") if line.startswith("|")]
    begin = lines.index(list(head))
    rows = []
    for cells in lines[begin + 2 :]:
        if len(cells) != len(head):
            break
        rows.append(cells)
    return rows


def shown(value):
    return f"{value:.3f}" if value >= 0.1 else f"{value:.4f}"


ROWS = read("embedded.csv")
MEANS = {key: float(line["mean"]) for key, line in ROWS.items()}
RUNS = runs("embedded_seeds.csv")


@pytest.mark.parametrize("name", ["embedded", "rate_or_shape"])
def test_no_block_and_no_row_is_dropped(name):
    study = load_study(name)
    expected = {
        (block.name, row.name)
        for block in study.blocks
        for row in study.rows
        if row.name not in block.without
    }
    assert read(f"{name}.csv").keys() == expected
    found = runs(f"{name}_seeds.csv")
    assert found.keys() == expected
    assert {len(values) for values in found.values()} == {len(study.seeds)}


@pytest.mark.parametrize("name", ["embedded", "rate_or_shape", "own_tables", "one_default"])
def test_means_and_tests_are_those_of_the_runs(name):
    found = runs(f"{name}_seeds.csv")
    for (block, row), line in read(f"{name}.csv").items():
        values = found[block, row]
        assert float(line["mean"]) == pytest.approx(sum(values) / len(values), rel=1e-9)
        if line["p"]:
            p = paired_wilcoxon(values, found[block, line["reference"]])
            assert float(line["p"]) == pytest.approx(p, rel=1e-9)


def test_the_first_table_is_of_the_runs():
    head = ("block", "online", "static", "best fixed or offline", "beat online", ONLINE_BOTH)
    rows = table(*head, STATIC_BOTH, "p of these two")
    assert len(rows) == 34
    for block, online, static, best, beat, both, static_both, p in rows:
        rivals = {row: MEANS[block, row] for row in FIXED_AND_OFFLINE if (block, row) in MEANS}
        first = min(rivals, key=rivals.get)
        assert online == shown(MEANS[block, "online"])
        assert static == shown(rivals["static"])
        assert best == f"{shown(rivals[first])} {first}"
        ahead = [row for row, mean in rivals.items() if mean < MEANS[block, "online"]]
        clear = {row for row in ahead if float(ROWS[block, row]["p_holm"]) < 0.05}
        assert beat == (", ".join(f"**{r}**" if r in clear else r for r in ahead) or "–")
        assert both == shown(MEANS[block, ONLINE_BOTH])
        assert static_both == shown(MEANS[block, STATIC_BOTH])
        pair = paired_wilcoxon(RUNS[block, ONLINE_BOTH], RUNS[block, STATIC_BOTH])
        assert p == f"{pair:.3f}"


def test_the_table_of_smoothed_judges_is_of_the_runs():
    head = ("block", SMOOTHED, "online", "static", "best fixed or offline")
    rows = table(*head, "beat smoothed judges")
    assert len(rows) == 28
    for block, smoothed, online, static, *_ in rows:
        assert smoothed == shown(MEANS[block, SMOOTHED])
        assert online == shown(MEANS[block, "online"])
        assert static == shown(MEANS[block, "static"])


def test_what_the_page_counts_is_so():
    spoiled = {block for block, _ in MEANS if "clean" not in block}
    assert len(spoiled) == 25
    duels = [
        (MEANS[block, "online"] < MEANS[block, row], float(ROWS[block, row]["p_holm"]) < 0.05)
        for block in spoiled
        for row in FIXED_AND_OFFLINE
        if (block, row) in MEANS
    ]
    won, clear = sum(w for w, _ in duels), sum(w and c for w, c in duels)
    lost = sum(c and not w for w, c in duels)
    assert f"Of the {len(duels)} single comparisons it wins {won}, {clear} of them" in TEXT
    assert f"and loses {lost} significantly" in TEXT
    alone = sum(
        MEANS[block, "static, validation alone"] < MEANS[block, "online"] for block in spoiled
    )
    assert f"on the validation rows alone in {alone} of 25" in TEXT
    worse = sum(
        MEANS[block, "static"] < MEANS[block, "online"]
        for block in {block for block, _ in MEANS if "clean" in block}
    )
    assert f"Online is worse than tuned plain training in {worse} of 9" in TEXT


# Ours and the rivals of each line of the tables that count blocks.
COUNTED = (
    ("online", ["static"]),
    ("online", FIXED_AND_OFFLINE),
    ("online", ["static, validation alone"]),
    (ONLINE_BOTH, [STATIC_BOTH]),
    ("online", ["online, learned rate"]),
    ("online", ["online, learned rate, η tenfold"]),
)


@pytest.mark.parametrize(
    ("page", "lines"), [(README, 4), (RESULTS / "embedded.md", 6)], ids=["readme", "study"]
)
def test_blocks_in_which_online_is_ahead_are_counted(page, lines):
    """In columns: wrong labels, long tails, clean labels."""
    cells = [line.strip("| ").split(" | ") for line in page.read_text("utf-8").splitlines()]
    begin = [row[1:] for row in cells].index(["wrong labels", "long tails", "clean labels"]) + 2
    rows = [row for row in cells[begin : begin + 7] if len(row) == 4]
    assert len(rows) == lines
    for (_, *counts), (ours, rivals) in zip(rows, COUNTED, strict=False):
        for count, kind in zip(counts, ("wrong", "long tail", "clean"), strict=True):
            blocks = {block for block, _ in MEANS if kind in block}
            won = [
                all(MEANS[b, ours] < MEANS[b, row] for row in rivals if (b, row) in MEANS)
                for b in blocks
            ]
            assert count == f"{sum(won)} of {len(won)}"


def test_one_default_at_a_time_is_of_the_runs():
    lines = read("one_default.csv")
    blocks = list(dict.fromkeys(block for block, _ in lines))
    cells = table("changed", "words", *blocks)
    assert len(cells) == 7
    p_values = []
    for row, _, *values in cells:
        for block, value in zip(blocks, values, strict=True):
            line, first = lines[block, row], lines[block, "defaults"]
            mean, before = float(line["mean"]), float(first["mean"])
            mark = ""
            if row != "defaults":
                p, holm = float(line["p"]), float(line["p_holm"])
                mark = ("▼" if mean > before else "▲") * ((p < 0.05) + (holm < 0.05))
                p_values.append(p)
            assert value == f"{shown(mean)} {mark}".strip()
    assert f"{sum(p < 0.05 for p in p_values)} of {len(p_values)} are worse" in TEXT
    assert f"No change is better with p < 0.05 in any table (0 of {len(p_values)})" in TEXT


def test_offline_losses_with_smoothed_judges_are_counted():
    row = "offline, imitate, smoothed judges"
    rivals = [block for block, name in MEANS if name == row]
    groups = [[b for b in rivals if ("clean" in b) is clean] for clean in (False, True)]
    beaten = [sum(MEANS[b, SMOOTHED] < MEANS[b, row] for b in group) for group in groups]
    ahead = [sum(MEANS[b, row] < MEANS[b, "online"] for b in group) for group in groups]
    assert [len(group) for group in groups] == [21, 7]
    hard = "blocks with wrong labels or long tails"
    assert f"is beaten by it in {beaten[0]} of 21 {hard} and {beaten[1]} of 7" in TEXT
    assert f"it is ahead in {ahead[0]} of 21 and {ahead[1]} of 7, never significantly" in TEXT
    clear = [
        float(ROWS[b, row]["p_holm"]) < 0.05 for b in rivals if MEANS[b, row] < MEANS[b, "online"]
    ]
    assert not any(clear)
