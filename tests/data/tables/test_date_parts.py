"""Dates become a few numbers."""

import numpy as np
import pandas as pd

from metaloss.data.tables.date_parts import part_names, with_date_parts
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.table_inputs import TableInputs
from metaloss.data.tables.text_table import ColumnForm

DATES = {"joined": ColumnForm(kind="dates")}


def days(*texts):
    moments = np.array(texts, dtype="datetime64[s]")
    return (moments - np.datetime64(0, "D")) / np.timedelta64(1, "D")


def test_parts_are_those_of_python_s_calendar():
    texts = ["1969-12-31T23:59:59", "2000-02-29T07:00:00", "2024-01-01T00:00:00", "1600-05-06"]
    rows = pd.DataFrame({"joined": days(*texts)})
    found = with_date_parts(rows, DATES).to_numpy()
    for row, text in zip(found, texts, strict=True):
        moment = pd.Timestamp(text).to_pydatetime()
        parts = [moment.year, moment.month, moment.day, moment.weekday(), moment.hour]
        assert row[1:].tolist() == parts


def test_missing_dates_have_missing_parts_and_one_mark():
    rows = pd.DataFrame({"joined": [*days("2024-01-31", "2024-02-01", "2023-05-01"), np.nan]})
    assert with_date_parts(rows, DATES).iloc[3].isna().all()
    inputs = TableInputs.fitted(CSVForm(), rows, DATES)
    # No hours: all dates are at midnight.
    parts = ["joined (year)", "joined (month)", "joined (day)", "joined (weekday)"]
    assert inputs.encoder.names == ["joined", "joined is missing", *parts]
    assert np.isfinite(inputs(rows)).all()


def test_a_column_that_has_the_name_of_a_part_stays_as_it_is():
    own = [5.0, 7.0, 9.0]
    rows = pd.DataFrame({"joined": days("2024-01-01", "2024-02-01", "2024-03-01"), "x": own})
    rows = rows.rename(columns={"x": part_names("joined")[1]})
    assert with_date_parts(rows, DATES)["joined (month)"].tolist() == own


def test_a_stored_encoding_of_dates_gives_the_same_numbers():
    rows = pd.DataFrame({"joined": days("2024-01-31T05:00", "2024-02-01", "2023-05-01")})
    inputs = TableInputs.fitted(CSVForm(), rows, DATES)
    again = TableInputs.from_dict(inputs.to_dict())
    assert np.array_equal(again(rows), inputs(rows))
    assert again.columns == ["joined"]
    assert inputs(rows).std(axis=0).min() > 0.5
