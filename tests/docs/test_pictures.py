"""Pictures of the pages that are drawn from numbers in `docs`."""

import shutil
from pathlib import Path

import pytest

from docs.hooks import pictures, spaces

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("draw", "numbers", "count"),
    [
        (pictures.readings, "results/embedded_learned.csv", 3),
        (pictures.auto, "results/auto.csv", 1),
        (pictures.steps, "benchmarks/cpu.md", 1),
    ],
)
def test_a_picture_is_drawn_from_its_file(draw, numbers, count, tmp_path):
    shutil.copy(DOCS / numbers, tmp_path)
    draw(tmp_path)
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert len(drawn) == count
    kept = {path.name for path in (DOCS / numbers).parent.glob("*.png")}
    assert drawn <= kept


def test_costs_are_read_from_the_page():
    found = pictures.costs((DOCS / "benchmarks" / "cpu.md").read_text("utf-8"))
    assert len(found) == 5
    first = found["ResNet-18, width 16, 32×32, batch 64"]
    assert (first["online, compiled"], first["torchopt"]) == (3.26, 7.59)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20 % of 5", "20\u00a0% of 5"), ("a % b", "a % b"), ("5 of 20", "5 of 20")],
)
def test_a_percent_sign_stays_with_its_number(text, expected):
    assert spaces.joined(text) == expected
