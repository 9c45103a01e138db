"""Trusted and test rows from files of their own, or marked in a column."""

import gzip

import numpy as np
import pytest
import torch

import metaloss
from metaloss.compose import compose
from metaloss.data.csv_task import CSV
from metaloss.data.files import DataWarning
from metaloss.errors import MetalossError
from metaloss.testing import check_part

PARTS = ("train", "valid", "test")


def table(count, seed):
    draw = np.random.default_rng(seed)
    size = draw.normal(10, 3, count)
    town = draw.choice(["Rome", "Oslo", "Bern"], count)
    day = draw.integers(1, 29, count)
    kind = np.where(size + (town == "Oslo") * 3 > 11, "yes", "no")
    price = 2 * size + day
    return {
        "size": [f"{one:.4f}" for one in size],
        "town": town.tolist(),
        "day": [f"2024-02-{one:02d}" for one in day],
        "kind": kind.tolist(),
        "price": [f"{one:.4f}" for one in price],
    }


def text(columns, separator=","):
    rows = zip(*columns.values(), strict=True)
    return "\n".join(separator.join(row) for row in [tuple(columns), *rows])


@pytest.fixture
def write(tmp_path):
    def write(name, columns, separator=",", encoding="utf-8"):
        path = tmp_path / name
        content = text(columns, separator).encode(encoding)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


@pytest.fixture
def files(write):
    """Return the options that name three files."""
    names = {"path": "train.csv", "trusted": "checked.csv", "test": "test.csv"}
    counts = (120, 30, 40)
    return {
        option: write(name, table(count, seed))
        for seed, (count, (option, name)) in enumerate(zip(counts, names.items(), strict=True))
    }


def build(files, **options):
    return CSV(**files, **{"target": "kind", "drop": ["price"], **options}).build(0)


def refused(files, **options):
    with pytest.raises(MetalossError) as error:
        build(files, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("target", ["kind", "price"])
def test_every_part_is_its_file_encoded_by_the_training_file_alone(files, target):
    other = {"kind": "price", "price": "kind"}[target]
    task = build(files, target=target, drop=[other])
    assert [len(getattr(task, part).targets) for part in PARTS] == [120, 30, 40]
    parts = [table(count, seed) for seed, count in enumerate((120, 30, 40))]
    sizes = [np.array(one["size"], dtype=float) for one in parts]
    for part, size, columns in zip(PARTS, sizes, parts, strict=True):
        made = getattr(task, part)
        scaled = (size - sizes[0].mean()) / sizes[0].std()
        np.testing.assert_allclose(made.inputs[:, 0], scaled, atol=1e-5)
        assert made.inputs[:, 2].tolist() == [one == "Oslo" for one in columns["town"]]
        if target == "kind":
            assert made.targets.tolist() == [one == "yes" for one in columns["kind"]]
        else:
            train = np.array(parts[0]["price"], dtype=float)
            wanted = (np.array(columns["price"], dtype=float) - train.mean()) / train.std()
            np.testing.assert_allclose(made.targets[:, 0], wanted, atol=1e-5)


def test_a_task_of_files_keeps_its_contract(files):
    del files["test"]  # so that the seed decides something
    results = check_part("task", "csv", CSV(**files, target="kind", drop=["price"]))
    assert [f"{r.name}: {r.message}" for r in results if not r.passed] == []


@pytest.mark.parametrize("given", ["trusted", "test"])
def test_the_part_without_a_file_is_drawn_from_the_first(files, given):
    task = build({name: files[name] for name in ("path", given)})
    counts = [len(getattr(task, part).targets) for part in PARTS]
    assert counts == {"trusted": [90, 30, 30], "test": [102, 18, 40]}[given]


def test_a_column_may_mark_the_trusted_rows(write):
    columns = table(100, 0)
    marks = ["yes" if row % 5 == 0 else ("" if row % 2 else "no") for row in range(100)]
    path = write("train.csv", columns | {"checked": marks})
    source = CSV(path=path, target="kind", trusted_column="checked")
    assert source.rows(0).valid.tolist() == [*range(0, 100, 5)]
    assert [len(part) for part in source.rows(0)] == [60, 20, 20]
    plain = write("plain.csv", columns)
    assert source.build(0).input_shape == CSV(path=plain, target="kind").build(0).input_shape


def test_files_may_be_written_in_other_ways(files, write):
    plain = build(files)
    columns = table(30, 1)
    columns = {name: columns[name] for name in reversed(columns)}
    for name in ("size", "price"):
        columns[name] = [cell.replace(".", ",") for cell in columns[name]]
    trusted = write("other.csv.gz", columns, separator=";", encoding="utf-8-sig")
    other = build({**files, "trusted": trusted})
    for part in PARTS:
        for one, two in zip(getattr(plain, part), getattr(other, part), strict=True):
            assert torch.equal(one, two)


def test_the_first_file_says_what_a_column_holds(files, write):
    columns = table(30, 1) | {"size": ["about 3"] * 29 + ["7.5"], "town": ["12"] * 30}
    message = r"checked.csv: column 'size' has numbers; 29 of 30 cells are something else and coun"
    with pytest.warns(DataWarning, match=message):
        task = build({**files, "trusted": write("checked.csv", columns)})
    assert not task.valid.inputs[:, 1:4].any()  # no town of the training rows
    assert (task.valid.inputs[:29, 0] == task.valid.inputs[0, 0]).all()


def test_columns_that_are_missing_or_unknown_are_named(files, write):
    columns = table(30, 1)
    trusted = {**files, "trusted": write("checked.csv", columns | {"more": ["1"] * 30})}
    with pytest.warns(DataWarning, match=r"checked.csv: left out, because not in .*: more$"):
        build(trusted)
    del columns["town"]
    trusted = {**files, "trusted": write("checked.csv", columns)}
    assert refused(trusted) == (
        f"{trusted['trusted']}: no column town; expected the columns of {files['path']} "
        "(or task.drop=[town])"
    )
    build(trusted, drop=["price", "town"])
    del columns["kind"]
    trusted = {**files, "trusted": write("checked.csv", columns)}
    assert refused(trusted).endswith(
        f"no column kind, town; expected the columns of {files['path']}, with the target"
    )


def test_classes_of_one_file_are_said_and_counted(files, write):
    columns = table(30, 1)
    columns["kind"][:2] = ["maybe", "maybe"]
    message = r"train.csv: classes that occur in one place only: 'maybe' in checked.csv$"
    with pytest.warns(DataWarning, match=message):
        task = build({**files, "trusted": write("checked.csv", columns)})
    assert task.outputs == 3
    assert task.valid.targets[:2].tolist() == [2, 2]
    columns["kind"] = ["maybe", "perhaps"] * 15
    trusted = write("checked.csv", columns)
    assert refused({**files, "trusted": trusted}) == (
        f"{trusted}: none of its classes occurs in {files['path']}"
    )


def test_classes_that_are_numbers_are_the_same_in_every_form(files, write):
    train, trusted = table(120, 0), table(30, 1)
    train["kind"] = [str(1 + row % 3) for row in range(120)]
    trusted["kind"] = [f"{1 + row % 3}.0" for row in range(30)]
    names = {"path": write("train.csv", train), "trusted": write("checked.csv", trusted)}
    task = build(names)
    assert task.outputs == 3
    assert task.valid.targets.tolist() == [row % 3 for row in range(30)]


def test_rows_that_stand_in_both_files_are_said(files, write):
    columns = {name: [*cells, *table(120, 0)[name][:7]] for name, cells in table(30, 1).items()}
    columns["kind"][-1] = "no"
    message = r"checked.csv: 7 of 37 rows have the same inputs as a row of .*train.csv$"
    with pytest.warns(DataWarning, match=message):
        build({**files, "trusted": write("checked.csv", columns)})


def test_what_cannot_be_is_refused(files, write):
    empty = table(30, 1) | {"kind": [""] * 30}
    trusted = write("checked.csv", empty)
    assert refused({**files, "trusted": trusted}) == (
        f"{trusted}: the target 'kind' is empty; expected values"
    )
    prices = table(30, 1)
    prices["price"][4] = "dear"
    trusted = write("checked.csv", prices)
    assert refused({**files, "trusted": trusted}, target="price", drop=["kind"]) == (
        f"{trusted}: the target 'price' is 'dear' in line 6; expected a number"
    )
    assert refused({**files, "trusted": "no.csv"}) == (
        "no.csv: No such file or directory; expected a CSV file"
    )
    assert refused(files, trusted_column="kind") == (
        "task.trusted and task.trusted_column: expected one of them"
    )
    alone = {"path": files["path"]}
    assert "unknown column of" in refused(alone, trusted_column="king")
    assert "column 'town' is 'Oslo' in line 2; expected yes" in refused(
        alone, trusted_column="town"
    ).replace("Rome", "Oslo").replace("Bern", "Oslo")
    ones = write("ones.csv", table(60, 0) | {"checked": ["1"] * 60})
    assert refused({"path": ones}, trusted_column="checked") == (
        f"{ones}: column 'checked' marks every row; expected some rows"
    )


def test_a_run_learns_from_three_files_wherever_it_goes_on(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["task=csv", "task.path=train.csv", "task.trusted=checked.csv", "task.test=test.csv"]
    words += ["task.target=kind", "task.drop=[price]", "schedule=static", "loss=cross_entropy"]
    options = compose(words).task.options
    assert (options.trusted, options.test) == (files["trusted"], files["test"])
    run = metaloss.train([*words, "steps=200", "tracker=[]", "output=run"])
    assert run.summary.metrics["test/error"] < 0.15
