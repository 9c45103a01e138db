"""Any CSV file makes a task of finite numbers, or an error of one line."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from metaloss.data.csv_task import CSV
from metaloss.data.files import DataWarning
from metaloss.data.tables.target import Predict
from metaloss.errors import MetalossError

few = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
many = settings(few, max_examples=2500)
PARTS = ("train", "valid", "test")

ODD = [
    *("1", "-3.5", "1e400", "-1e308", "1e-320", "1_2", "012", "12", "1,234", "1.234", "1.234,5"),
    *(
        "nan",
        "inf",
        "-Infinity",
        "NA",
        "?",
        "None",
        "",
        " ",
        "45%",
        "$3",
        "€ 4,5",
        "5%5",
        "%",
        "−2",
    ),
    *("2024-02-30", "2024-02-29", "31.12.2024", "9999-12-31", "0000-00-00", "2024-01-01T25:00"),
    *(
        "x",
        "x y",
        '"',
        '""',
        "'",
        "#",
        "a#b",
        "\x00",
        "\ufeff",
        "１２",
        "0x10",
        "True",
        "--",
        "+",
        ".",
    ),
    *("1 234", "1'234", "1\u202f234", "12,34,567", "1.2.3", "=1+1", "\u2028", "1e5", "1E+05", "٣"),
]
cell = st.one_of(st.sampled_from(ODD), st.floats().map(repr), st.text(max_size=5))
garbage = st.one_of(
    st.binary(max_size=400),
    st.text(alphabet='01,;\t|"\n\r.%#aé ', max_size=400).map(lambda text: text.encode()),
)


@st.composite
def tables(draw):
    """Draw columns, each of few kinds of cells, written with or without quotes."""
    separator = draw(st.sampled_from(",;\t|"))
    rows = draw(st.integers(20, 60))
    columns = []
    for _ in range(draw(st.integers(2, 4))):
        kinds = draw(st.lists(cell, min_size=1, max_size=4))
        columns.append(
            [
                kinds[place]
                for place in draw(
                    st.lists(st.integers(0, len(kinds) - 1), min_size=rows, max_size=rows)
                )
            ]
        )
    columns.append(["ab"[row % 2] for row in range(rows)])
    lines = [separator.join([*(f"c{place}" for place in range(len(columns) - 1)), "y"])]
    quote = draw(st.booleans())
    for row in zip(*columns, strict=True):
        lines.append(
            separator.join('"' + one.replace('"', '""') + '"' if quote else one for one in row)
        )
    return draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines).encode("utf-8", "surrogatepass")


def check_whole(path, content, options):
    """Build a task; what comes out is finite and in range, what does not is one line."""
    path.write_bytes(content)
    error = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            task = CSV(path=str(path), **options).build(0)
        except MetalossError as refusal:
            error = refusal
    if error is not None:
        assert "\n" not in str(error)
        return False
    assert {message.category for message in said} <= {DataWarning}
    for part in PARTS:
        inputs, targets = getattr(task, part)
        assert inputs.isfinite().all()
        if targets.is_floating_point():
            assert targets.isfinite().all()
        else:
            assert 0 <= targets.min() <= targets.max() < task.outputs
    assert np.isfinite(task.constant_loss)
    return True


OPTIONS = st.fixed_dictionaries(
    {"target": st.sampled_from(["c0", "y", "y"])},
    optional={
        "predict": st.sampled_from(Predict),
        "comment": st.just("#"),
        "dates": st.sampled_from(["%d.%m.%Y", "%Y-%m-%d", "%q", "nothing"]),
        "encoding": st.sampled_from(["utf-16", "cp1252", "ascii", "utf-7"]),
        "imbalance": st.just(2.0),
    },
)


@few
@given(content=tables() | garbage, options=OPTIONS)
@example(content=b"c0,c1\n" + b"1,2\n2,3\n" * 30, options={"target": "c0"})
def test_a_file_never_ends_in_a_traceback(tmp_path_factory, content, options):
    check_whole(tmp_path_factory.getbasetemp() / "any.csv", content, options)


@pytest.mark.faults
@many
@given(content=tables() | garbage, options=OPTIONS)
def test_no_file_ever_ends_in_a_traceback(tmp_path_factory, content, options):
    check_whole(tmp_path_factory.getbasetemp() / "any.csv", content, options)


def test_the_drawn_files_do_make_tasks(tmp_path):
    assert check_whole(tmp_path / "any.csv", b"c0,c1\n" + b"1,2\n2,3\n" * 30, {"target": "c0"})


codes = st.lists(
    st.text(alphabet="0123456789_eE+-x１", min_size=1, max_size=4).filter(str.strip),
    min_size=2,
    max_size=6,
    unique=True,
)


def check_classes(path, texts):
    """Each text is a class of its own, as pandas tells them apart."""
    rows = pd.Series(texts * 20)
    path.write_text("\n".join(["x,y", *(f"{row % 7},{text}" for row, text in rows.items())]))
    source = CSV(path=str(path), target="y", predict=Predict.classes)
    task, picked = source.build(0), source.rows(0)
    assert task.outputs == rows.nunique()
    for part in PARTS:
        labels = getattr(task, part).targets.numpy()
        table = pd.crosstab(rows.iloc[getattr(picked, part)].to_numpy(), labels)
        assert ((table > 0).sum(axis=0) == 1).all()
        assert ((table > 0).sum(axis=1) == 1).all()


@settings(few, max_examples=25)
@given(texts=codes)
def test_codes_are_told_apart(tmp_path_factory, texts):
    check_classes(tmp_path_factory.getbasetemp() / "codes.csv", texts)


@pytest.mark.faults
@many
@given(texts=codes)
def test_many_codes_are_told_apart(tmp_path_factory, texts):
    check_classes(tmp_path_factory.getbasetemp() / "codes.csv", texts)


@st.composite
def frames(draw):
    """Draw a table of numbers with gaps, words and a target, as pandas holds it."""
    rows = draw(st.integers(40, 80))
    seed = draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    size = 10.0 ** draw(st.integers(-3, 6))
    table = {
        "a": rng.normal(draw(st.floats(-5, 5)), 1, rows) * size,
        "b": np.where(rng.random(rows) < 0.3, np.nan, rng.normal(size=rows)),
        "c": rng.choice(["Rome", "Oslo", "Bern", "None"], rows),
        "y": rng.normal(size=rows) * size,
    }
    return pd.DataFrame(table)


def check_numbers(path, table, decimal):
    """Compare a task with a pipeline of scikit-learn that is fitted on the same rows."""
    separator = ";" if decimal == "," else ","
    table.to_csv(path, index=False, decimal=decimal, sep=separator)
    source = CSV(path=str(path), target="y")
    task, picked = source.build(0), source.rows(0)
    train = table.iloc[picked.train]
    scaled = StandardScaler().fit(train[["a"]])
    imputer = SimpleImputer(strategy="median").fit(train[["b"]])
    filled = StandardScaler().fit(imputer.transform(train[["b"]]))
    gaps = MissingIndicator(features="all").fit(train[["b"]])
    words = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(train[["c"]].to_numpy())
    target = StandardScaler().fit(train[["y"]])
    for part in PARTS:
        rows = table.iloc[getattr(picked, part)]
        missing = gaps.transform(rows[["b"]]).astype(float)
        if not train["b"].isna().any():
            missing = missing[:, :0]
        inputs = [
            scaled.transform(rows[["a"]]),
            filled.transform(imputer.transform(rows[["b"]])),
            missing,
            words.transform(rows[["c"]].to_numpy()),
        ]
        made = getattr(task, part)
        assert made.inputs.abs().max() > 0.5
        np.testing.assert_allclose(
            made.inputs.numpy(), np.concatenate(inputs, axis=1), rtol=2e-5, atol=2e-6
        )
        np.testing.assert_allclose(
            made.targets.numpy(), target.transform(rows[["y"]]), rtol=2e-5, atol=2e-6
        )


@settings(few, max_examples=15)
@given(table=frames(), decimal=st.sampled_from(".,"))
def test_inputs_are_those_of_a_pipeline_of_scikit_learn(tmp_path_factory, table, decimal):
    check_numbers(tmp_path_factory.getbasetemp() / "frame.csv", table, decimal)


@pytest.mark.faults
@settings(few, max_examples=500)
@given(table=frames(), decimal=st.sampled_from(".,"))
def test_many_inputs_are_those_of_a_pipeline_of_scikit_learn(tmp_path_factory, table, decimal):
    check_numbers(tmp_path_factory.getbasetemp() / "frame.csv", table, decimal)
