import numpy as np
import pytest

from metaloss.data.files import DataWarning
from metaloss.data.tables.columns import Columns, fit_columns
from metaloss.errors import MetalossError


def columns(**values):
    return Columns(
        values={
            name: np.array(value, dtype=object if isinstance(value[0], str) else np.float64)
            for name, value in values.items()
        }
    )


NAN = float("nan")


def test_numbers_are_standardised_by_the_training_rows():
    encode = fit_columns(columns(a=[1.0, 2.0, 3.0, 6.0], b=[10.0, 0.0, 0.0, 0.0]))
    made = encode(columns(a=[5.0], b=[10.0]))
    a, b = np.array([1.0, 2, 3, 6]), np.array([10.0, 0, 0, 0])
    np.testing.assert_allclose(made, [[(5 - a.mean()) / a.std(), (10 - b.mean()) / b.std()]])


def test_gaps_are_filled_with_the_training_median_and_marked():
    encode = fit_columns(columns(a=[1.0, NAN, 2.0, 9.0]))
    filled = np.array([1.0, 2.0, 2.0, 9.0])
    expected = (np.array([2.0, 4.0]) - filled.mean()) / filled.std()
    made = encode(columns(a=[NAN, 4.0]))
    np.testing.assert_allclose(made, np.stack([expected, [1.0, 0.0]], axis=1))


def test_gaps_in_other_rows_alone_are_filled_and_not_marked():
    encode = fit_columns(columns(a=[1.0, 2.0, 9.0]))
    np.testing.assert_allclose(encode(columns(a=[NAN])), encode(columns(a=[2.0])))
    assert encode(columns(a=[NAN])).shape == (1, 1)


def test_where_it_is_missing_may_be_all_that_a_column_tells():
    encode = fit_columns(columns(a=[3.0, NAN, 3.0]))
    assert encode(columns(a=[NAN, 3.0])).tolist() == [[1.0], [0.0]]


def test_texts_get_a_column_each_and_unseen_ones_none():
    encode = fit_columns(columns(town=["Rome", "Oslo", "Rome", "Bern"]))
    made = encode(columns(town=["Bern", "Oslo", "Rome", "Riga", ""]))
    assert made.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_the_most_frequent_texts_are_kept():
    texts = ["c"] * 4 + ["a"] * 2 + ["b"] * 2 + ["d"]
    message = (
        r"^column 'x' holds 4 different texts: an input for each of the 2 most frequent ones, none "
        r"for the others, which stand in 3 of 9 training rows$"
    )
    with pytest.warns(DataWarning, match=message):
        encode = fit_columns(columns(x=texts), most=2)
    assert encode(columns(x=["a", "b", "c", "d"])).tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]


def test_what_tells_no_rows_apart_is_left_out():
    train = columns(
        same=[5.0, 5.0, 5.0],
        empty=[NAN, NAN, NAN],
        name=["Ann", "Bob", "Cy"],
        word=["x", "x", "x"],
        used=[1.0, 2.0, 3.0],
    )
    with pytest.warns(DataWarning, match=r"^left out, as each .* row: same, empty, name, word$"):
        assert fit_columns(train)(train).shape == (3, 1)
    del train.values["used"]
    with pytest.raises(MetalossError, match=r"^no column to learn from: of same, empty, name, wo"):
        fit_columns(train)


def test_rows_are_picked_in_all_columns():
    some = columns(a=[1.0, 2.0, 3.0], b=["x", "y", "z"])[np.array([2, 0])]
    assert (some.values["a"].tolist(), some.values["b"].tolist()) == ([3.0, 1.0], ["z", "x"])
    assert len(some) == 2
