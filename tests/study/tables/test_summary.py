import csv
import io
import math

import pytest

from metaloss.study.tables import summary_text
from metaloss.study.tables.render import to_csv
from metaloss.study.tables.statistics import paired_wilcoxon
from metaloss.study.tables.summary import against, pairwise, standings, summarize
from metaloss.study.tables.table import set_aside

# Seven seeds: a unanimous paired difference has p = 2 / 2⁷, and 2 · 2 / 2⁷ < 0.05 after Holm.
SEEDS = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]


def met(tables, reference):
    """Return how the reference fares against each other row."""
    return list(against(pairwise(tables, reference)).itertuples())


def placed(tables, reference, aside=()):
    """Return where the reference stands, by block."""
    found = pairwise(tables, reference)
    rows = standings(found[~found["rival"].isin(aside)]).itertuples()
    return {row.block: row for row in rows}


def apart(tables, aside):
    return {name: set_aside(table, aside) for name, table in tables.items()}


def shifted(by):
    return [value + by for value in SEEDS]


@pytest.fixture
def tables(block):
    return {
        "won": block({"ours": SEEDS, "x": shifted(0.1), "y": shifted(0.2)}),
        "lost": block({"ours": shifted(0.5), "x": SEEDS, "y": shifted(0.6)}),
        "tied": block({"ours": SEEDS, "x": SEEDS}),
        # The mean says won, the seeds disagree.
        "unclear": block({"ours": SEEDS, "x": [*shifted(-0.001)[:6], 0.9]}),
    }


def test_wins_ties_and_losses_are_counted(tables):
    x, y = met(tables, "ours")
    assert (x.rival, x.blocks, x.wins, x.ties, x.losses) == ("x", 4, 2, 1, 1)
    assert (x.clear_wins, x.clear_losses) == (1, 1)
    assert (y.rival, y.blocks, y.wins, y.clear_wins, y.losses) == ("y", 2, 2, 2, 0)


def test_the_gain_is_the_mean_over_blocks_of_the_paired_difference(tables):
    x, y = met(tables, "ours")
    unclear = (6 * -0.001 + 0.9 - SEEDS[6]) / 7
    assert x.gain == pytest.approx((0.1 - 0.5 + 0 + unclear) / 4)
    assert y.gain == pytest.approx(0.15)
    assert (x.n, x.p) == (4, None), "fewer than six blocks have no test"


def test_the_test_over_blocks_is_on_their_means(block):
    ours, theirs = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.15, 0.19, 0.4, 0.55, 0.7, 0.85]
    tables = {
        str(i): block({"ours": [a - 0.01, a + 0.01], "x": [b, b]})
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
    }
    (found,) = met(tables, "ours")
    assert found.p == paired_wilcoxon(theirs, ours) == pytest.approx(4 / 2**6)


def test_only_seeds_that_both_have_are_paired(block):
    table = block({"ours": [0.1, 0.9, math.nan], "x": [0.2, math.nan, 0.0]})
    (found,) = met({"b": table}, "ours")
    assert (found.wins, found.gain) == (1, pytest.approx(0.1))


def test_more_lost_runs_are_worse_whatever_the_others_came_to(block):
    better, worse = ([*shifted(by)[:6], math.nan] for by in (-0.1, 0.1))
    table = block({"ours": SEEDS, "x": better})
    (x,) = met({"b": table}, "ours")
    assert (x.wins, x.clear_wins, x.losses, x.gain) == (1, 0, 0, pytest.approx(-0.1))
    assert placed({"b": table}, "x")["b"].beaten_by == ("ours",)
    (y,) = met({"b": block({"ours": SEEDS, "y": worse})}, "ours")
    assert (y.wins, y.clear_wins) == (1, 1)


def test_rows_aside_do_not_weaken_the_tests_of_rivals(block):
    # Six seeds: p = 2 / 2⁶ is below 0.05 for one rival, and no longer for two.
    ours, theirs = SEEDS[:6], shifted(0.1)[:6]
    tables = {"b": block({"ours": ours, "x": theirs, "ablation": theirs})}
    assert summarize(tables)["all"].against["clear_wins"].tolist() == [0, 0]
    found = summarize(apart(tables, ["ablation"]))["all"]
    assert found.against["clear_wins"].tolist() == [1, 1]
    assert found.standings["clearly_beaten"].tolist() == [1] == found.standings["rivals"].tolist()


def test_more_is_better_where_the_goal_says_so(block):
    table = block({"ours": shifted(0.5), "x": SEEDS}, goal="max")
    (found,) = met({"b": table}, "ours")
    assert (found.wins, found.clear_wins, found.gain) == (1, 1, pytest.approx(0.5))
    (lower,) = met({"b": table}, "x")
    assert (lower.losses, lower.clear_losses, lower.gain) == (1, 1, pytest.approx(-0.5))


def test_blocks_are_tested_against_the_reference_that_is_asked_for(block):
    rows = {"x": shifted(0.1), "y": shifted(0.2), "ours": SEEDS}
    same = block(rows, reference="ours"), block(rows, reference="x")
    assert met({"b": same[1]}, "ours") == met({"b": same[0]}, "ours")
    assert met({"b": same[1]}, "ours")[0].clear_wins == 1


def test_a_row_without_a_number_loses(block):
    failed = [math.nan] * 7
    (found,) = met(
        {
            "theirs": block({"ours": SEEDS, "x": failed}),
            "ours": block({"ours": failed, "x": SEEDS}),
            "both": block({"ours": failed, "x": failed}),
        },
        "ours",
    )
    assert (found.wins, found.ties, found.losses) == (1, 1, 1)
    assert (found.clear_wins, found.clear_losses) == (0, 0)
    assert (found.n, found.gain, found.p) == (0, None, None)


def test_blocks_without_the_row_or_the_reference_do_not_count(block):
    tables = {
        "a": block({"ours": SEEDS, "x": shifted(0.1)}),
        "b": block({"x": SEEDS, "y": SEEDS}),
        "c": block({"ours": SEEDS, "y": shifted(0.1)}),
    }
    assert [(one.rival, one.blocks) for one in met(tables, "ours")] == [("x", 1), ("y", 1)]
    assert list(placed(tables, "ours")) == ["a", "c"]


def test_gains_in_other_units_are_not_added(block):
    tables = {
        "a": block({"ours": SEEDS, "x": shifted(0.1)}),
        "b": block({"ours": SEEDS, "x": shifted(0.3)}),
        "c": block({"ours": [2000.0], "x": [3000.0]}, metric="test/mse"),
    }
    (found,) = met(tables, "ours")
    assert (found.blocks, found.wins, found.metric, found.n) == (3, 3, "test/error", 2)
    assert found.gain == pytest.approx(0.2)


def test_rivals_that_beat_the_reference_are_named_the_best_first(block):
    rows = {"ours": shifted(0.5), "x": shifted(0.2), "y": shifted(0.1), "z": shifted(0.7)}
    (found,) = placed({"b": block(rows)}, "ours").values()
    assert found.beaten_by == found.clearly_beaten_by == ("y", "x")
    assert (found.rivals, found.beaten, found.clearly_beaten) == (3, 1, 1)
    turned = {name: [-value for value in values] for name, values in rows.items()}
    (same,) = placed({"b": block(turned, goal="max")}, "ours").values()
    assert same == found


def test_a_row_aside_does_not_decide_who_is_first(block):
    tables = {"b": block({"ours": shifted(0.1), "x": shifted(0.2), "ablated": SEEDS})}
    both = placed(tables, "ours")["b"]
    assert (both.rivals, both.beaten) == (2, 1)
    alone = placed(tables, "ours", aside=["ablated"])["b"]
    assert (alone.rivals, alone.clearly_beaten) == (1, 1)


def test_the_mean_alone_may_be_first_without_being_clearly_so(tables):
    found = placed(tables, "ours")
    assert [one.beaten == one.rivals for one in found.values()] == [True, False, False, True]
    assert [one.clearly_beaten for one in found.values()] == [2, 1, 0, 0]


def test_groups_are_summarized_apart_beside_all_blocks(tables):
    found = summarize(apart(tables, ["y", "ours"]), groups={"good": ["won", "unclear"]})
    assert list(found) == ["all", "good"]
    assert found["all"].reference == "ours"
    assert found["all"].aside == ("y",), "the reference is no rival of itself"
    alone = {name: tables[name] for name in ("won", "unclear")}
    assert list(found["good"].against.itertuples()) == met(alone, "ours")
    assert found["all"].ranks.blocks == tuple(tables)
    assert list(found["all"].ranks.means) == ["ours", "x"]


def test_the_headline_counts_blocks(tables):
    found = summarize(tables)
    assert summary_text.headline(found["all"]) == (
        "ours beats every rival in 2 of 4 blocks (50%), significantly better than each of them in "
        "1. Some rival beats it in 1, significantly in 1."
    )


def test_markdown_names_who_beats_the_reference(tables):
    text = summary_text.to_text(summarize(apart(tables, ["y"]), groups={"g": ["won"]}))
    lost = next(line for line in text.splitlines() if line.startswith("| lost"))
    assert [cell.strip() for cell in lost.split("|")[1:-1]] == ["lost", "0 of 1", "0 of 1", "**x**"]
    assert "## all: 4 blocks" in text
    assert "## g: 1 block\n" in text
    assert "y (aside)" in text
    assert "Ranks of 2 rows over 4 blocks; critical difference 0.98." in text
    assert "n too small" in text


def test_csv_reads_back_to_the_same_numbers(tables):
    found = summarize(apart(tables, ["y"]), groups={"g": ["won", "lost"]})
    rows = list(csv.DictReader(io.StringIO(to_csv(summary_text.numbers(found)))))
    assert [(row["group"], row["row"]) for row in rows] == [
        (group, row) for group in ("all", "g") for row in ("ours", "x", "y")
    ]
    ours, x, y = rows[:3]
    assert ours["wins"] == ours["gain"] == ""
    assert float(x["gain"]) == found["all"].against["gain"][0]
    assert float(x["mean_rank"]) == found["all"].ranks.means["x"]
    assert (x["wins"], x["clear_wins"], x["p"], x["aside"]) == ("2", "1", "", "0")
    assert (y["mean_rank"], y["aside"]) == ("", "1")


def test_a_group_without_a_rival_says_so(block):
    found = summarize({"a": block({"ours": SEEDS}), "b": block({"ours": SEEDS})})
    assert "ours meets no rival here" in summary_text.to_text(found)
    assert len(to_csv(summary_text.numbers(found)).splitlines()) == 2
