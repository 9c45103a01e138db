import csv
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from metaloss.core.storage.run_folder import RunFolder
from metaloss.errors import MetalossError
from metaloss.study.tables import table_text
from metaloss.study.tables.render import to_csv, to_rich
from metaloss.study.tables.statistics import holm, paired_wilcoxon
from metaloss.study.tables.table import Group, make_table, refer, set_aside


def run(final, *, best=None, status="ok", seconds=1.0, goal="min", metric="test/error"):
    summary = {
        "metrics": {metric: final, "test/task_loss": 9.0, "valid/error": 9.0},
        "metrics_at_best_validation": {metric: final if best is None else best, "step": 3},
        "status": status,
        "seconds": seconds,
        "goal": goal,
    }
    return RunFolder(
        path=None, config={}, journal=(), curves=(), summary=summary, link=None, notes=()
    )


def group(name, finals, *, static=True, **options):
    runs = {seed: run(final, **options) for seed, final in enumerate(finals)}
    return Group(name=name, static=static, runs=runs)


CE = [0.40, 0.38, 0.41, 0.39, 0.42, 0.37, 0.36]
GCE = [0.10, 0.11, 0.09, 0.10, 0.12, 0.10, 0.08]
ONLINE = [0.06, 0.05, 0.06, 0.07, 0.05, 0.06, 0.37]


@pytest.fixture
def table():
    return make_table(
        [
            group("online", ONLINE, static=False, best=0.04, seconds=5.0),
            group("ce", CE),
            group("gce", GCE),
        ]
    )


def test_numbers_are_numpys(table):
    online, ce, _ = table.lines
    assert (table.metric, table.goal, table.reference, table.best) == (
        "test/error", "min", "ce", "gce",
    )  # fmt: skip
    assert online.final.mean == pytest.approx(np.mean(ONLINE), rel=1e-12)
    assert online.final.std == pytest.approx(np.std(ONLINE, ddof=1), rel=1e-12)
    assert online.best.mean == pytest.approx(0.04)
    assert online.seconds == 5.0
    assert online.difference == pytest.approx(np.mean(np.subtract(ONLINE, CE)), rel=1e-12)
    assert (ce.difference, ce.p, ce.p_holm) == (None, None, None)


def test_p_values_are_against_the_reference_and_corrected(table):
    online, _, gce = table.lines
    expected = [paired_wilcoxon(ONLINE, CE), paired_wilcoxon(GCE, CE)]
    assert [online.p, gce.p] == expected
    assert expected == [pytest.approx(4 / 2**7), pytest.approx(2 / 2**7)]
    assert [online.p_holm, gce.p_holm] == holm(expected)


def test_rows_aside_are_corrected_among_themselves():
    groups = [group("ce", CE), group("gce", GCE), group("ours", ONLINE, static=False)]
    groups += [group("ablation", ONLINE, static=False), group("other", GCE, static=False)]
    table = make_table(groups, aside=("other", "ablation"))
    assert table.aside == ("ablation", "other")
    _, gce, ours, ablation, other = table.lines
    assert [gce.p_holm, ours.p_holm] == holm([gce.p, ours.p])
    assert [ablation.p_holm, other.p_holm] == holm([ablation.p, other.p])
    assert (ablation.p, other.p) == (ours.p, gce.p), "they are tested like any other"
    assert any(
        "aside, no rivals of 'ce': 'ablation', 'other'" in t for t in table_text.legend(table)
    )


def test_rows_may_be_set_aside_after_the_fact(table):
    groups = [group("online", ONLINE, static=False, best=0.04, seconds=5.0)]
    groups += [group("ce", CE), group("gce", GCE)]
    apart = set_aside(table, ["gce", "of another block"])
    assert apart == make_table(groups, aside=["gce"]) != table
    assert apart.lines[0].p_holm == apart.lines[0].p
    assert set_aside(apart, ()) == table
    assert refer(apart, "online").aside == ("gce",)


def test_pairs_are_by_seed():
    few = Group(name="few", static=False, runs={5: run(0.1), 2: run(0.2)})
    line = make_table([group("ce", CE), few]).lines[1]
    assert line.pairs == 2
    assert line.difference == pytest.approx(((0.1 - CE[5]) + (0.2 - CE[2])) / 2)
    assert line.p is None


def test_runs_no_better_than_a_constant_are_named_below_the_table():
    runs = {seed: run(0.9) for seed in range(3)}
    for seed in (0, 2):
        runs[seed].summary["learned_nothing"] = True
    table = make_table([group("ce", CE), Group(name="moved", static=True, runs=runs)])
    assert [line.chance for line in table.lines] == [0, 2]
    assert (
        "runs no better than the best constant prediction: 'moved' (2 of 3)"
        in table_text.legend(table)
    )
    assert not any("constant" in text for text in table_text.legend(make_table([group("ce", CE)])))


def test_a_run_without_a_number_counts_as_diverged_not_in_the_mean():
    runs = {0: run(None, status="diverged", best=0.5), 1: run(0.2), 2: run(math.nan)}
    table = make_table([Group(name="a", static=True, runs=runs)])
    (line,) = table.lines
    assert (line.n, line.diverged, line.final.n, line.final.mean) == (3, 1, 1, 0.2)
    assert line.values == {0: None, 1: 0.2, 2: None}
    assert any("left out of mean" in text for text in table_text.legend(table))
    json.loads(table_text.to_json(table, []))


def test_a_row_that_lost_a_run_is_not_the_best_one():
    lucky = Group(name="lucky", static=False, runs={0: run(0.01), 1: run(None, status="diverged")})
    table = make_table([group("ce", CE), lucky])
    assert table.lines[1].final.mean < table.lines[0].final.mean
    assert table.best == "ce"


def test_a_row_aside_is_not_the_best_one_but_the_reference_may_be(table):
    assert table.best == "gce"
    assert set_aside(table, ["gce"]).best == "online"
    assert refer(set_aside(table, ["gce"]), "gce").best == "gce"


def test_the_reference_may_be_chosen():
    groups = [group("ce", CE), group("gce", GCE)]
    assert make_table(groups, reference="gce").lines[0].difference > 0
    with pytest.raises(MetalossError, match="unknown reference row 'gc': did you mean 'gce'"):
        make_table(groups, reference="gc")


def test_a_table_may_be_referred_to_another_row(table):
    groups = [group("online", ONLINE, static=False, best=0.04, seconds=5.0)]
    groups += [group("ce", CE), group("gce", GCE)]
    assert refer(table, "gce") == make_table(groups, reference="gce") != table
    assert refer(refer(table, "gce"), "ce") == table
    with pytest.raises(MetalossError, match="unknown reference row 'gc'"):
        refer(table, "gc")


def test_without_a_static_row_the_first_is_the_reference():
    groups = [group("a", CE, static=False), group("b", GCE, static=False)]
    assert make_table(groups).reference == "a"


def test_the_metric_may_be_chosen():
    groups = [group("ce", CE)]
    assert make_table(groups, metric="test/task_loss").lines[0].final.mean == 9.0
    with pytest.raises(MetalossError, match=r"unknown metric .*'test/eror': did you mean"):
        make_table(groups, metric="test/eror")


def test_runs_of_different_tasks_are_no_comparison():
    with pytest.raises(MetalossError, match="share no test metric"):
        make_table([group("a", CE), group("b", CE, metric="test/mse")])
    with pytest.raises(MetalossError, match="which values of test/error are better"):
        make_table([group("a", CE), group("b", CE, goal="max")])


def test_more_is_better_where_the_goal_says_so():
    assert make_table([group("a", CE, goal="max"), group("b", GCE, goal="max")]).best == "a"


def test_nothing_to_compare():
    with pytest.raises(MetalossError, match="no finished run"):
        make_table([])


def test_csv_reads_back_to_the_same_numbers(table):
    rows = list(csv.DictReader(io.StringIO(to_csv(table_text.numbers({"b": table})))))
    assert [row["row"] for row in rows] == ["online", "ce", "gce"]
    assert float(rows[0]["mean"]) == table.lines[0].final.mean
    assert float(rows[2]["p_holm"]) == table.lines[2].p_holm
    assert rows[1]["difference"] == ""


def test_json_has_the_values_by_seed(table):
    read = json.loads(table_text.to_json(table, ["a note"]))
    assert read["lines"][0]["values"]["6"] == 0.37
    assert read["notes"] == ["a note"]


def test_markdown_is_an_aligned_table(table):
    text = table_text.to_text({"": table}, ["x: not finished"])
    lines = text.splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    assert "| 0.1029 ± 0.1180 |" in lines[2]
    assert lines[3].split("|")[-3].strip() == "reference"
    assert lines[-1] == "- x: not finished"


def test_too_few_pairs_say_so():
    table = make_table([group("ce", CE[:3]), group("gce", GCE[:3])])
    assert "n too small" in table_text.to_text({"": table}, [])


def test_large_metrics_lose_decimals_small_ones_gain():
    large = make_table([group("a", [2912.3, 3001.7], metric="test/mse")])
    assert table_text.shown(large).iloc[0, 2] == "2957 ± 63"
    small = make_table([group("a", [0.00291, 0.003])])
    assert table_text.shown(small).iloc[0, 2] == "0.002955 ± 0.000064"


def test_the_terminal_shows_the_best_row_in_bold(table):
    console = Console(file=io.StringIO(), force_terminal=True, width=140, color_system="standard")
    console.print(to_rich(table_text.shown(table), table.best))
    bold = [line for line in console.file.getvalue().splitlines() if "\x1b[1m" in line]
    assert any("gce" in line for line in bold)
    assert not any("online" in line for line in bold)
