"""Whatever words the command line is given: no traceback; status 0, or 2 with one line."""

import contextlib
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloss.cli.main import main

KEYS = (
    *("task", "model", "loss", "schedule", "start", "meta_optimizer", "inner", "tracker"),
    *("steps", "seed", "seeds", "batch_size", "output", "device", "compile", "guard", "tf32"),
    *("inner.lr", "model.hidden", "loss.path", "task.path", "task.target", "schedule.unroll"),
    *("tracker.wandb.project", "meta_optimizer.lr", "+preset", "+paper", "stpes", "inner.", "."),
    *("hydra.run.dir", "hydra/launcher", "task@x", "a.b.c.d", ""),
)
VALUES = (
    *("digits", "mlp", "online", "null", "true", "1", "0", "-1", "1e9", "1e400", "nan", "inf"),
    *("[1,2]", "[", "{a: 1}", "{", "'", "'a b'", '"', "${oc.env:HOME}", "${x", "???", "1,2"),
    *("range(3)", "choice(1,2)", "glob(*)", "a=b", "~", "$", "\\", " ", "", "é", "\n", "0x10"),
    *("1_000", "9" * 400, "x" * 5000, "/no/such/file.csv", "../..", "[console,wandb]", "cuda:99"),
)
FLAGS = ("--cfg", "--config", "--plugin", "--stpes", "-x", "--", "--help", "--version", "-h")
COMMANDS = ("list", "plot", "export", "trian", "check", "")

# What is no UTF-8 reaches Python as lone surrogates.
text = st.text(st.characters(exclude_categories=()), max_size=12)
value = st.one_of(st.sampled_from(VALUES), text, st.integers().map(str), st.floats().map(repr))
word = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), value),
    st.builds(
        "{}{}={}".format, st.sampled_from(["+", "++", "~", "--"]), st.sampled_from(KEYS), value
    ),
    st.sampled_from(KEYS),
    text,
)
train = st.builds(
    lambda words, flags: ["train", "--cfg", *words, *flags],
    st.lists(word, max_size=4),
    st.lists(st.sampled_from(FLAGS), max_size=1),
)
resume = st.builds(
    lambda folder, words: ["train", "--resume", folder, *words], value, st.lists(word, max_size=2)
)
compare = st.builds(
    # Without a row's "schedule=" nothing that could be trained is asked for.
    lambda row, seeds: ["compare", "out", "--row", row, "--seeds", seeds, "steps=none"],
    value,
    value,
)
other = st.builds(
    lambda command, words: [command, *words], st.sampled_from(COMMANDS), st.lists(value, max_size=2)
)
lines = st.one_of(train, train, resume, compare, other)


def check(line):
    # As Python's own: what cannot be encoded is an error in one, and escaped in the other.
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(line)
    out.flush()
    err.flush()
    shown, said = (one.buffer.getvalue().decode() for one in (out, err))
    assert status in (0, 2), line
    if status == 2:
        assert said.startswith("metaloss: error: "), (line, said)
        assert said.count("\n") == 1, (line, said)
        assert said.endswith("\n")
    assert "Traceback" not in said + shown


# Files may be looked for in the folder that the tests run in: nothing is written there.
QUIETLY = settings(
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(autouse=True)
def _own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@settings(QUIETLY, max_examples=50)
@given(line=lines)
def test_fifty_lines_end_well(line):
    check(line)


@pytest.mark.faults
@settings(QUIETLY, max_examples=2500)
@given(line=lines)
def test_two_thousand_five_hundred_lines_end_well(line):
    check(line)
