"""The page of models says what the tests hold."""

from .__main__ import PAGE
from .every import KINDS
from .page import page


def test_the_page_is_the_table():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.zoo"


def test_every_kind_has_a_row():
    rows = [line for line in page().splitlines() if line.startswith("| ")]
    assert len(KINDS) > 100
    for name in KINDS:
        assert any(row.startswith(f"| {name} ") for row in rows), name
