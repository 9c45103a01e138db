"""The page of all families has every number of its file, rounded to three decimals."""

import csv
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "docs" / "results"
PAGE = (RESULTS / "families.md").read_text("utf-8")


def stored():
    with (RESULTS / "families.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def shown(line):
    """Return the cells of a line of the file."""
    means = [
        f"{float(line[mean]):.3f} ± {float(line[std]):.3f}"
        for mean, std in (("mean", "std"), ("best_mean", "best_std"))
    ]
    tested = ["–", "reference", "–"]
    if line["p"]:
        difference = f"{float(line['difference']):+.3f}".replace("-", "−")
        tested = [difference, f"{float(line['p']):.3f}", f"{float(line['p_holm']):.3f}"]
    validation, seconds = f"{float(line['valid_mean']):.3f}", f"{float(line['seconds']):.1f}"
    return [line["row"], *means, validation, seconds, *tested]


def test_the_tables_are_those_of_the_file():
    found = []
    for section in PAGE.split("\n## ")[1:]:
        block, _, text = section.partition("\n")
        cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line[:2] == "| "]
        found += [[block, *row] for row in cells[1:]]
    assert found == [[line["block"], *shown(line)] for line in stored()]


def test_what_all_rows_have_in_common_is_said_once():
    assert {line["n"] for line in stored()} == {"10"}
    assert {line["diverged"] for line in stored()} == {"0"}
    assert "Ten seeds" in PAGE
    assert "no run diverged" in PAGE
