"""Any CSV file is read like pandas reads it when it is told everything, or refused in one line."""

import datetime
import gzip
import io
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloss.data.files import DataWarning
from metaloss.data.tables.cells import Decimal, Thousands
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.reader import read_csv
from metaloss.errors import MetalossError

SIGNS = {".": Decimal.point, ",": Decimal.comma}
GROUPS = {"": "none", ",": "comma", ".": "point", " ": "space", "'": "apostrophe"}
MISSING = ["", "NA", "nan", "?", "NULL"]
WORDS = ["Rome", "Ōsaka", "a, b", 'the "x"', "line\nend", "1_2", "Infinity", "１２", "x;y", "None"]
few = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(few, max_examples=2500)


@dataclass(frozen=True)
class File:
    content: bytes
    text: str
    kinds: dict
    form: dict
    pandas: dict
    rows: int


def grouped(text, decimal, thousands):
    """Return a number that Python wrote with other signs."""
    whole, _, rest = text.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return sign + f"{int(digits):,}".replace(",", thousands) + (decimal + rest if rest else "")


def cells_of(draw, kind, decimal, thousands):
    """Return one cell of a column."""
    if kind == "text":
        return draw(st.sampled_from(WORDS))
    if kind == "date":
        return draw(st.dates(datetime.date(1700, 1, 1), datetime.date(2200, 1, 1))).isoformat()
    if kind == "small":
        return repr(draw(st.floats(-1e3, 1e3))).replace(".", decimal)
    if kind == "integer":
        return str(draw(st.integers(-(10**12), 10**12)))
    places = draw(st.integers(0, 4))
    number = draw(st.decimals(-(10**7), 10**7, places=places, allow_nan=False))
    text = grouped(f"{number:f}", decimal, thousands)
    return f"{text}%" if kind == "percent" else text


@st.composite
def files(draw):
    """Draw a file, what its columns hold and what tells pandas how to read it."""
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = draw(st.sampled_from([".", ","]))
    thousands = draw(st.sampled_from([sign for sign in GROUPS if sign != decimal]))
    comment = draw(st.sampled_from(["", "#"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "shift_jis"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    names = ["text", "date", "small", "integer", "grouped", "percent"]
    kinds = draw(st.lists(st.sampled_from(names), min_size=1, max_size=5))
    kinds = {f"c{place}": kind for place, kind in enumerate(kinds)}
    rows = draw(st.integers(4, 12))
    lines = [separator.join([*kinds, "target"])]
    for row in range(rows):
        cells = []
        for kind in kinds.values():
            # The first rows are known, so that most cells are what the column is.
            missing = row > rows * 2 // 3 and draw(st.booleans())
            cell = draw(st.sampled_from(MISSING)) if missing else ""
            cells.append(cell if missing else cells_of(draw, kind, decimal, thousands))
        lines.append(
            separator.join(quoted(cell, separator, draw) for cell in [*cells, str(row % 2)])
        )
        if draw(st.integers(0, 5)) == 0:
            lines.append(draw(st.sampled_from(["", "  ", *(["# a, note"] if comment else [])])))
    text = "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))
    content = text.replace("\n", end).encode(encoding, "replace")
    given_encoding = encoding if encoding in ("utf-16-le", "shift_jis") else ""
    pandas = {"sep": separator, "decimal": decimal, "thousands": thousands or None}
    pandas |= {"comment": comment or None}
    return File(
        content=gzip.compress(content) if draw(st.booleans()) else content,
        text=text.encode(encoding, "replace").decode(encoding),
        kinds=kinds,
        form={"comment": comment, "encoding": given_encoding},
        pandas=pandas,
        rows=rows,
    )


def quoted(cell, separator, draw):
    if any(mark in cell for mark in (separator, '"', "\n", "#")) or draw(st.booleans()):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def expected(file):
    """Return the columns as pandas reads them, told of everything.

    It is given plain text: after a blank line that ends with CR it loses an empty first cell.
    """
    texts = [name for name, kind in file.kinds.items() if kind in ("text", "date", "percent")]
    missing = {name: MISSING for name, kind in file.kinds.items() if kind != "text"}
    with warnings.catch_warnings():
        # Newer versions round correctly by themselves.
        warnings.filterwarnings("ignore", "The 'float_precision' argument is deprecated")
        table = pd.read_csv(
            io.StringIO(file.text),
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,
            na_values=missing,
            float_precision="round_trip",
            skipinitialspace=True,
            **file.pandas,
        )
    decimal, thousands = file.pandas["decimal"], file.pandas["thousands"] or ""
    columns = {}
    for name, kind in file.kinds.items():
        if kind == "date":
            epoch = datetime.date(1970, 1, 1)
            days = [
                np.nan if pd.isna(cell) else (datetime.date.fromisoformat(cell) - epoch).days
                for cell in table[name]
            ]
            columns[name] = np.array(days, dtype=np.float64)
        elif kind == "percent":
            bare = table[name].str.rstrip("%").str.replace(thousands, "", regex=False)
            columns[name] = (
                bare.str.replace(decimal, ".", regex=False).astype(np.float64).to_numpy()
            )
        elif kind != "text":
            columns[name] = table[name].to_numpy(dtype=np.float64)
        else:
            columns[name] = table[name].to_numpy(dtype=object)
    return columns


def check_reading(path, file):
    path.write_bytes(file.content)
    wanted = expected(file)
    assert {len(column) for column in wanted.values()} == {file.rows}
    told = {
        "decimal": SIGNS[file.pandas["decimal"]],
        "thousands": Thousands(GROUPS[file.pandas["thousands"] or ""]),
    }
    for form in (CSVForm(**file.form), CSVForm(**file.form, **told)):
        error = None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                columns = read_csv(path, form).columns(list(file.kinds))
            except MetalossError as refusal:
                error = refusal
        if error is not None:
            # Only what a person could not tell either is refused, and not once it is told.
            assert "may be" in str(error)
            assert form.decimal is Decimal.auto
            continue
        assert {message.category for message in said} <= {DataWarning}
        for name, column in wanted.items():
            read = columns[name]
            if any(repr(name) in str(message.message) for message in said):
                assert form.decimal is Decimal.auto  # said to be open
            elif column.dtype == object:
                assert [cell.strip() for cell in column] == read.tolist()
            else:
                # pandas is off by the last bit where thousands have a sign.
                np.testing.assert_allclose(read, column, rtol=4e-16, atol=0, err_msg=name)


@few
@given(file=files())
def test_files_are_read_as_pandas_reads_them(tmp_path_factory, file):
    check_reading(tmp_path_factory.getbasetemp() / "drawn.csv", file)


@pytest.mark.faults
@many
@given(file=files())
def test_many_files_are_read_as_pandas_reads_them(tmp_path_factory, file):
    check_reading(tmp_path_factory.getbasetemp() / "drawn.csv", file)
