"""What the cells of a CSV file's columns mean."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloss.data.files import DataWarning
from metaloss.data.tables.cells import Decimal, Thousands, dates, number_readings
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.reader import read_csv
from metaloss.errors import MetalossError

AUTO = Decimal.auto, Thousands.auto
NAN = float("nan")


def numbers(*cells):
    """Return what each reading of a column makes of it."""
    found = number_readings(pd.Series(cells, dtype=object), *AUTO)
    return [reading.values.tolist() for reading in found]


@pytest.fixture
def table(tmp_path):
    """Return a function that writes columns into a file and reads it."""

    def table(separator=",", quote='"', form=None, **columns):
        rows = zip(*columns.values(), strict=True)
        lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
        (tmp_path / "t.csv").write_text("\n".join([separator.join(columns), *lines]), "utf-8")
        return read_csv(tmp_path / "t.csv", form)

    return table


SURE = {
    "plain": (["1.5", "-2", "+3e2", ".5", "4."], [1.5, -2.0, 300.0, 0.5, 4.0]),
    "decimal_comma": (["0,5", "12,345"], [0.5, 12.345]),
    "thousands_comma": (["12,345", "1,234.5", "7"], [12345.0, 1234.5, 7.0]),
    "millions": (["1,234,567", "12,345"], [1234567.0, 12345.0]),
    "thousands_point": (["1.234,50", "999,5", "1.234"], [1234.5, 999.5, 1234.0]),
    "space": (["12 345", "1\u00a0234", "1\u202f234,5"], [12345.0, 1234.0, 1234.5]),
    "apostrophe": (["12'345.5", "1\u2019234"], [12345.5, 1234.0]),
    "percent": (["45%", "1.5 %", "", "NA"], [45.0, 1.5, NAN, NAN]),
    "money": (["$1,234.50", "-$3", "$ 4"], [1234.5, -3.0, 4.0]),
    "minus": (["\u22125", "1"], [-5.0, 1.0]),
    "groups_of_two": (["12,34", "1,5"], [12.34, 1.5]),
}


@pytest.mark.parametrize("case", SURE)
def test_numbers_are_read_as_they_are_written(case):
    cells, expected = SURE[case]
    found = numbers(*cells)
    assert len(found) == 1
    np.testing.assert_array_equal(found[0], expected)


def test_what_may_be_two_numbers_is_both():
    assert numbers("12,345", "1,234") == [[12.345, 1.234], [12345.0, 1234.0]]
    assert numbers("12.345", "7") == [[12.345, 7.0], [12345.0, 7.0]]


@pytest.mark.parametrize(
    "cell",
    ["1_2", "nan", "inf", "Infinity", "0x10", "１２", "٣", "1e", "True", "5%5", "1,2,3", "1e301"],
)
def test_python_s_own_syntax_makes_no_numbers(cell):
    cells = ["1.5", "2.5", cell]
    (found,) = numbers(*cells)
    np.testing.assert_array_equal(found, [1.5, 2.5, NAN])


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(values=st.lists(st.floats(-1e299, 1e299), min_size=1, max_size=5))
def test_every_number_is_read_to_the_last_bit(values):
    for decimal in ".,":
        cells = [repr(value).replace(".", decimal) for value in values]
        read = number_readings(
            pd.Series(cells, dtype=object),
            {".": Decimal.point, ",": Decimal.comma}[decimal],
            AUTO[1],
        )
        assert read[0].values.tolist() == values


def test_most_cells_decide():
    assert numbers("1", "2", "x") == [[1.0, 2.0, pytest.approx(NAN, nan_ok=True)]]
    assert numbers("1", "x") == []
    assert numbers("x", "y", "1") == []


def test_other_columns_decide_what_one_leaves_open(table):
    open_, comma, point = ["12,345", "1,234"], ["0,5", "1,5"], ["0.5", "1.5"]
    read = table(a=open_, b=comma)
    assert read.numbers("a").tolist() == [12.345, 1.234]
    read = table(a=open_, b=point)
    assert read.numbers("a").tolist() == [12345.0, 1234.0]
    read = table(separator=";", a=["1.234", "999"], b=comma)
    assert read.numbers("a").tolist() == [1234.0, 999.0]
    message = r"column 'a': '12,345' may be 12.345 or 12345; expected task.decimal=point or task.d"
    with pytest.raises(MetalossError, match=message):
        table(a=open_, b=comma, c=point).numbers("a")
    with pytest.raises(MetalossError, match=message):
        table(a=open_, b=["1", "2"]).numbers("a")


def test_options_decide_what_is_open(table):
    cells = ["12,345", "1,234"]
    for options, expected in (
        ({"decimal": Decimal.comma}, [12.345, 1.234]),
        ({"decimal": Decimal.point}, [12345.0, 1234.0]),
        ({"thousands": Thousands.comma}, [12345.0, 1234.0]),
        ({"thousands": Thousands.none}, [12.345, 1.234]),
    ):
        assert table(a=cells, form=CSVForm(**options)).numbers("a").tolist() == expected
    form = CSVForm(thousands=Thousands.point)
    assert table(a=["1.234", "5"], b=["1", "2"], form=form).columns("ab")["a"][0] == 1234.0


def test_semicolons_mean_a_decimal_comma_and_that_is_said(table):
    for cell, number, other in (("12,345", 12.345, 12345), ("1.234", 1.234, 1234)):
        message = f"column 'a': '{cell}' may be {number} or {other}; .*; read as {number}$"
        with pytest.warns(DataWarning, match=message):
            read = table(separator=";", a=[cell, "1"], b=["x", "y"]).numbers("a")
        assert read.tolist() == [number, 1.0]


def test_dates_are_days_since_1970():
    cells = ["1970-01-02", "2024-02-29 12:00", "2024-02-29T12:00:00+02:00", "", "1850-06-01"]
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    expected = [1.0, 19782.5, 19782.5 - 2 / 24, NAN]
    expected.append((datetime.datetime(1850, 6, 1, tzinfo=datetime.UTC) - epoch).days)
    np.testing.assert_allclose(dates(pd.Series(cells), ""), expected, rtol=1e-15)
    days = dates(pd.Series(["31.12.2024", "01.02.2024"]), "%d.%m.%Y")
    assert days.tolist() == [20088.0, 19754.0]
    assert dates(pd.Series(["2024-12-31"]), "%d.%m.%Y").tolist() == [20088.0]
    assert dates(pd.Series(["1970-01", "1970-02"]), "").tolist() == [0.0, 31.0]
    assert dates(pd.Series(["2024-13-01", "x"]), "") is None
    far = dates(pd.Series(["9999-12-31", "2024-12-31", "2024-12-30"]), "")
    # The oldest versions of pandas know no such days: they are then said to be missing.
    assert far[0] == (datetime.date(9999, 12, 31) - datetime.date(1970, 1, 1)).days or (
        pd.__version__ < "3" and np.isnan(far[0])
    )
    assert far[1:].tolist() == [20088.0, 20087.0]
    with pytest.raises(MetalossError, match=r"^task.dates=%q: .*; expected such as %d.%m.%Y$"):
        dates(pd.Series(["x"]), "%q")


def test_columns_of_dates_become_numbers_or_are_said(table):
    days = [f"2024-01-{day:02d}" for day in range(1, 9)]
    assert table(d=days).columns(["d"])["d"].tolist() == [19723.0 + day for day in range(8)]
    other = [f"{day:02d}/01/2024" for day in range(1, 9)]
    named = [f"{day} January 2024" for day in range(1, 9)]
    for texts in (other, named, [f"Jan {day}, 2024" for day in range(1, 9)]):
        with pytest.warns(DataWarning, match=r"column 'd' looks like dates but is read as text; "):
            assert table(d=texts).columns(["d"])["d"].tolist() == texts
    assert table(d=named, form=CSVForm(dates="%d %B %Y")).columns(["d"])["d"][7] == 19730.0
    form = CSVForm(dates="%d/%m/%Y")
    assert table(d=other, form=form).columns(["d"])["d"][0] == 19723.0
    with pytest.warns(DataWarning, match=r"column 'd' has dates; 1 of 9 cells are something else"):
        assert np.isnan(table(d=[*days, "soon"]).columns(["d"])["d"][8])


BAD_FORMS = {
    "same": (
        {"decimal": Decimal.comma, "thousands": Thousands.comma},
        "task.decimal=comma and task.thousands=comma: expected different signs",
    ),
    "comment": ({"comment": "//"}, "task.comment=//: expected one sign, such as #"),
    "encoding": (
        {"encoding": "utf8000"},
        "task.encoding=utf8000: expected the name of an encoding, such as cp1252",
    ),
    "codec": (
        {"encoding": "base64"},
        "task.encoding=base64: expected the name of an encoding, such as cp1252",
    ),
}


@pytest.mark.parametrize("case", BAD_FORMS)
def test_bad_options_are_refused_in_words(case):
    options, message = BAD_FORMS[case]
    with pytest.raises(MetalossError) as error:
        CSVForm(**options)
    assert str(error.value) == message
