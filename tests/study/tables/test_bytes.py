"""The texts of a comparison, byte for byte: other programs read them, and so do people's eyes."""

import math
from pathlib import Path

import pytest

from metaloss.study.launch.tuning import Score
from metaloss.study.spec.spec import Row, Study
from metaloss.study.tables import summary_text, table_text, tuning_text
from metaloss.study.tables.render import to_csv
from metaloss.study.tables.summary import summarize
from metaloss.study.tables.table import set_aside

STORED = Path(__file__).parent / "stored"
SEEDS = [0.013, 0.021, 0.034, 0.042, 0.055, 0.063, 1 / 15]
STUDY = Study(
    rows=(
        Row(name="ours", tune=(("inner.lr=0.1", "steps=5"), ())),
        Row(name="like, ours", tuned_as="ours"),
    ),
    tuning_seeds=(100, 101, 103),
)


@pytest.fixture
def texts(block):
    tables = {
        "won": block({"ours": SEEDS, "x, y": [v + 0.1 for v in SEEDS], "z": SEEDS[::-1]}),
        "lost": block({"ours": SEEDS, "x, y": [v / 3 for v in SEEDS], "z": [math.nan] * 7}),
        "prices": block({"ours": [2957.5, 1e6 / 3], "z": [1e-7, 3.0]}, metric="test/mse"),
    }
    apart = {name: set_aside(table, ["z"]) for name, table in tables.items()}
    summaries = summarize(apart, groups={"good": ["won"]})
    scores = {
        block: [
            Score(row="ours", setting=index, words=words, n=2, metric="valid/error", mean=mean,
                  diverged=index, chosen=not index)
            for index, (words, mean) in enumerate(zip(STUDY.rows[0].tune, (0.1, None), strict=True))
        ]
        for block in tables
    }  # fmt: skip
    return {
        "table.csv": to_csv(table_text.numbers(tables)),
        "table.md": table_text.to_text(tables, ["won: a note"]),
        "table.json": table_text.to_json(tables["lost"], ["a note"]),
        "seeds.csv": to_csv(table_text.numbers_by_seed(tables)),
        "summary.csv": to_csv(summary_text.numbers(summaries)),
        "summary.md": summary_text.to_text(summaries),
        "tuning.csv": to_csv(tuning_text.numbers(scores)),
        "tuning.md": tuning_text.to_text(STUDY, scores),
    }


def test_texts_are_what_they_were(texts):
    stored = {path.name: path.read_text() for path in STORED.iterdir()}
    assert texts == stored
