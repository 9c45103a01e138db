"""What is wrong with a table's columns, target or file is told in one line."""

import pytest

from metaloss.data.corruptions import NoiseKind
from metaloss.data.csv_task import CSV
from metaloss.data.tables.target import Predict
from metaloss.errors import MetalossError

from .people import people

# Of people, the name; that it is said has a test of its own.
pytestmark = pytest.mark.filterwarnings("ignore:left out, because each is constant:UserWarning")


def error_of(**options):
    with pytest.raises(MetalossError) as error:
        CSV(**options).build(0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_errors_about_the_choice_of_columns(write):
    path = write(people())
    assert error_of() == "task=csv: expected task.path=FILE.csv and task.target=COLUMN"
    assert error_of(path=path) == (
        f"task.path={path}: expected task.target=COLUMN, one of: name, height, age, town, income, "
        "buys"
    )
    assert error_of(path=path, target="incme") == (
        f"unknown column of {path} 'incme': did you mean 'income'? "
        "(allowed: age, buys, height, income, name, town)"
    )
    assert "did you mean 'age'?" in error_of(path=path, target="buys", drop=["aged"])
    dropped = ["name", "height", "age", "town", "income"]
    assert error_of(path=path, target="buys", drop=dropped) == (
        f"{path}: expected one or more columns beside the target"
    )
    assert error_of(path=path, target="buys", drop=dropped[1:]).startswith(
        "expected a column to learn from: each of name is constant"
    )
    assert error_of(path=path, target="income", imbalance=10) == (
        "task.imbalance=10: the target 'income' has numbers; expected classes (use "
        "task.predict=classes)"
    )
    assert "task.noise_kind=pair" in error_of(path=path, target="income", noise_kind=NoiseKind.pair)
    assert "task.label_smoothing=0.1" in error_of(path=path, target="income", label_smoothing=0.1)


def test_errors_about_the_target(write):
    rows = people()
    path = write(rows)
    assert error_of(path=path, target="buys", predict=Predict.numbers) == (
        f"{path}: the target 'buys' is {rows[0]['buys']!r} in line 2; expected a number "
        "(or task.predict=classes)"
    )
    assert "has 120 different texts in 120 rows; expected classes with" in error_of(
        path=path, target="name"
    )
    rows[4]["income"] = "lots"
    assert "the target 'income' is 'lots' in line 6; expected a number" in error_of(
        path=write(rows), target="income"
    )
    for row in rows:
        row["buys"] = "yes"
    assert "the target 'buys' is yes in every row; expected two" in error_of(
        path=write(rows), target="buys"
    )
    for row in rows:
        row["buys"] = ""
    assert "the target 'buys' is empty" in error_of(path=write(rows), target="buys")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no rows; expected a line of names"),
        (b"a,b\n", "no rows; expected a line of names"),
        (b"1,2\n3,4\n", "the first line has only numbers, 1, 2; expected the names of"),
        (b"a,a\n1,2\n", "two columns are named 'a'; expected different names"),
        (b"a,b\n1,2\n\n1,2,3\n", "line 4: 3 cells; expected 2, as in the first line"),
        (
            b"a,b\n1,2\nM\xfcnchen,2\n",
            "line 3: not UTF-8 (byte 0xfc); expected task.encoding=NAME, such as cp1252",
        ),
        (b"a,b\n" + b"1,2\n2,3\n" * 4, "8 rows with a target; expected at least 20"),
        (b"a,b\n" + b"x" * 200_000 + b",1\n", "line 2: field larger than field limit"),
    ],
)
def test_errors_about_the_file(tmp_path, content, message):
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    options = {"path": str(path), "target": "b", "predict": Predict.classes}
    text = error_of(**options)
    assert str(path) in text
    assert message in text


def test_a_file_that_is_not_there_is_named(tmp_path):
    text = error_of(path=str(tmp_path / "no.csv"), target="x")
    assert text == f"{tmp_path / 'no.csv'}: No such file or directory; expected a CSV file"
    assert "Is a directory" in error_of(path=str(tmp_path), target="x")
