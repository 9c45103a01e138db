import json

import numpy as np
import pandas as pd
import pytest

from metaloss.data.files import DataWarning
from metaloss.data.tables.columns import TableEncoder, fit_columns
from metaloss.errors import MetalossError


def columns(**values):
    kinds = {
        name: object if isinstance(one[0], str) else np.float64 for name, one in values.items()
    }
    return pd.DataFrame({name: pd.Series(one, dtype=kinds[name]) for name, one in values.items()})


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
        r"^column 'x' has 4 different texts: the 2 most frequent ones get an input, the others, in "
        r"3 of 9 training rows, do not$"
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
    with pytest.warns(
        DataWarning, match=r"^left out, because each .* row: same, empty, name, word$"
    ):
        assert fit_columns(train)(train).shape == (3, 1)
    with pytest.raises(MetalossError, match=r"^expected a column to learn from: each of same, em"):
        fit_columns(train.drop(columns="used"))


def test_inputs_are_named_in_the_order_of_the_columns():
    encode = fit_columns(columns(town=["b", "a", "b"], age=[1.0, NAN, 3.0], size=[1.0, 2.0, 4.0]))
    assert encode.names == ["town=a", "town=b", "age", "age is missing", "size"]
    made = encode(columns(size=[1.0], age=[NAN], town=["a"]))
    assert made[0, :4].tolist() == [1.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize("seed", range(20))
def test_what_was_fitted_comes_back_from_plain_data_to_the_last_bit(seed):
    draw = np.random.default_rng(seed)
    size = 10.0 ** draw.integers(-200, 200)
    a, b = draw.normal(size=(2, 51)) * size
    train = columns(
        town=draw.choice(["Rome", "Oslo", "", "\u00fc\ud800"], 51).tolist(),
        a=np.where(draw.random(51) < 0.3, NAN, a),
        only_gaps=np.where(draw.random(51) < 0.3, NAN, 2.5),
        b=b,
    )
    names = [*train][:: 1 if seed % 2 else -1]
    encode = fit_columns(train[names])
    again = TableEncoder.from_dict(json.loads(json.dumps(encode.to_dict())))
    other = train.iloc[draw.permutation(51)]
    made = encode(other)
    assert made.flags.c_contiguous
    assert np.abs(made[:, [*encode.names].index("b")]).max() > 1
    np.testing.assert_array_equal(made, again(other))
    assert again.names == encode.names
    assert again.to_dict() == encode.to_dict()
