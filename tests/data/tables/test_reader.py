"""Files and targets that are written otherwise than in plain UTF-8 and plain numbers."""

import gzip
import warnings

import numpy as np
import pytest
import torch

from metaloss.data.csv_task import CSV
from metaloss.data.files import DataWarning
from metaloss.data.scaling import fit_scaling
from metaloss.data.tables.columns import check_differ
from metaloss.data.tables.form import CSVForm
from metaloss.data.tables.reader import read_csv
from metaloss.data.tables.target import Predict
from metaloss.errors import MetalossError

PARTS = ("train", "valid", "test")
LINES = ["städte,größe,y", *(f"Zürich,{row % 7}.5,{row % 2}" for row in range(60))]
TEXT = "\n".join(LINES)


def task_of(tmp_path, content, **options):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CSV(path=str(path), **{"target": "y", "drop": ["städte"], **options}).build(0)


FORMS = {
    "mark": (TEXT.encode("utf-8-sig"), {}),
    "utf16": (TEXT.encode("utf-16"), {}),
    "utf32": (TEXT.encode("utf-32"), {}),
    "told": (TEXT.encode("cp1252"), {"encoding": "cp1252"}),
    "told_and_marked": (TEXT.encode("utf-8-sig"), {"encoding": "cp1252"}),
    "gzip": (gzip.compress(TEXT.encode()), {}),
    "windows": (TEXT.replace("\n", "\r\n").encode(), {}),
    "macintosh": (TEXT.replace("\n", "\r").encode(), {}),
    "comments": (
        "\n".join(["# first", *(f"{line} # more, or less" for line in LINES), "#last"]).encode(),
        {"comment": "#"},
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_a_file_gives_the_same_task_however_it_is_written(tmp_path, case):
    content, options = FORMS[case]
    plain, other = task_of(tmp_path, TEXT), task_of(tmp_path, content, **options)
    assert plain.input_shape == (1,)
    for part in PARTS:
        for one, two in zip(getattr(plain, part), getattr(other, part), strict=True):
            assert torch.equal(one, two)


def test_a_comment_sign_in_quotes_is_text(tmp_path):
    (tmp_path / "t.csv").write_text('# note, "x\na,b\n"C# \n#1",2 # y\n')
    table = read_csv(tmp_path / "t.csv", CSVForm(comment="#"))
    assert (table.column("a"), table.column("b"), table.lines) == (["C# \n#1"], ["2"], [3])


BROKEN = {
    "encoding": (
        TEXT.encode("cp1252"),
        {},
        "line 1: not UTF-8 (byte 0xe4); expected task.encoding=",
    ),
    "other": (
        TEXT.encode(),
        {"encoding": "ascii"},
        "line 1: not ASCII (byte 0xc3); expected task.",
    ),
    "zeros": ("a,y\n1,2\n".encode("utf-16-le"), {}, "got zero bytes, which no CSV file has"),
    "gzip": (gzip.compress(TEXT.encode())[:-20], {}, "expected a CSV file"),
    "gzip_within": (b"\x1f\x8b\x08" + b"\0" * 30, {}, "expected a CSV file"),
    "quote": (TEXT.replace("Zürich", '"Zürich', 1).encode(), {}, "line 2: "),
    "last_quote": ((TEXT + '\n1,2,"3').encode(), {}, "line 62: unexpected end of data"),
    "long": (b"a" * 200_000 + b",b,y\n1,2,3\n", {}, "line 1: field larger than field limit"),
    "short": ((TEXT + "\n1,2").encode(), {}, "line 62: 2 cells; expected 3, as in the first line"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_in_one_line(tmp_path, case):
    content, options, message = BROKEN[case]
    with pytest.raises(MetalossError) as error:
        task_of(tmp_path, content, **options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("codes", "classes"),
    [
        (["12", "1_2", "012", "3"], "(012, 12, 1_2, 3)"),
        (["12", "012", "3"], "(012, 12, 3)"),
        (["1", "nan-1", "inf"], "(1, inf, nan-1)"),
        (["1e1", "10", "2"], "(10, 1e1, 2)"),
        (["12", "１２"], "(12, １２)"),
        (["1", "1.0", "2"], "(1, 2)"),
        (["01", "02", "10"], "(1, 2, 10)"),
        (["1234567", "1234568"], "(1234567, 1234568)"),
        (["9007199254740992", "9007199254740993"], "(9007199254740992, 9007199254740993)"),
    ],
)
def test_codes_that_differ_are_different_classes(tmp_path, codes, classes):
    rows = [codes[row % len(codes)] for row in range(120)]
    text = "\n".join(["x,y", *(f"{row % 7},{code}" for row, code in enumerate(rows))])
    for predict in (Predict.auto, Predict.classes):
        task = task_of(tmp_path, text, drop=[], predict=predict)
        assert f"y {classes} from the other columns" in task.description
        assert task.outputs == classes.count(",") + 1
        assert (
            len(torch.cat([getattr(task, part).targets for part in PARTS]).unique()) == task.outputs
        )


def test_one_number_in_two_forms_among_many_is_refused_or_told(tmp_path):
    codes = [*(str(code) for code in range(100)), *(f"0{code}" for code in range(1, 10))]
    text = "\n".join(["x,y", *(f"{row % 7},{code}" for row, code in enumerate(codes))])
    message = r"the target 'y' has '1' and '01', which may be one number or two codes; expected tas"
    with pytest.raises(MetalossError, match=message):
        task_of(tmp_path, text, drop=[])
    assert task_of(tmp_path, text, drop=[], predict=Predict.numbers).outputs == 1
    assert task_of(tmp_path, text, drop=[], predict=Predict.classes).outputs == 109


@pytest.mark.parametrize("size", [1e-200, 1e200, 1e299])
def test_targets_and_inputs_of_any_size_are_scaled(tmp_path, size):
    draw = np.random.default_rng(0).normal(size=(100, 2))

    def build(factor):
        lines = [f"{x * factor!r},{y * factor!r}" for x, y in draw.tolist()]
        return task_of(tmp_path, "\n".join(["x,y", *lines]), drop=[])

    plain, other = build(1.0), build(size)
    assert plain.train.targets.std() > 0.5
    for part in PARTS:
        for one, two in zip(getattr(plain, part), getattr(other, part), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_the_scaling_of_common_numbers_is_the_plain_one():
    values = np.random.default_rng(0).normal(size=(50, 3)) * [1e-3, 1.0, 1e9]
    scale = fit_scaling(values, per_feature=True)
    assert (scale.mean == values.mean(axis=0)).all()
    assert (scale.std == values.std(axis=0)).all()
    large = fit_scaling(values * 2.0**900, per_feature=True)
    assert (large.std == scale.std * 2.0**900).all()


def test_numbers_too_far_from_the_training_rows_are_refused(tmp_path):
    rows = [f"{row % 7},{row * 0.5}" for row in range(60)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["x,y", *rows]))
    picked = CSV(path=str(path), target="y").rows(0)
    rows[picked.test[0]] = "1e200,1.5"
    message = r"^task=csv: inputs of test rows are too large or not finite after scaling by the tr"
    with pytest.raises(MetalossError, match=message):
        task_of(tmp_path, "\n".join(["x,y", *rows]), drop=[])


def test_inputs_that_tell_no_test_rows_apart_are_refused(tmp_path):
    rows = [f"{row // 2},{row % 2}" for row in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["x,y", *rows]))
    picked = CSV(path=str(tmp_path / "t.csv"), target="y").rows(0)
    for row in picked.test:
        rows[row] = f"3,{row % 2}"
    with pytest.raises(
        MetalossError, match="every input is the same in all 15 test rows; expected"
    ):
        task_of(tmp_path, "\n".join(["x,y", *rows]), drop=[])
    check_differ("csv", torch.zeros(1, 3))


def test_a_class_without_training_rows_is_named(tmp_path):
    lines = ["x,y", *(f"{row % 7},{'pqr'[row % 3]}" for row in range(90))]
    for seed in range(20):
        path = tmp_path / "t.csv"
        path.write_text("\n".join([*lines, "0,s"]))
        if 90 not in CSV(path=str(path), target="y").rows(seed).train:
            break
    message = (
        r"^task.imbalance=2.0: class 's' has no training rows; expected one or more of each class"
    )
    with pytest.raises(MetalossError, match=message):
        CSV(path=str(path), target="y", imbalance=2.0).build(seed)


def test_what_gives_no_input_is_said_in_one_line(tmp_path):
    lines = ["name,same,x,y", *(f"n{row},1,{row % 7},{row % 2}" for row in range(60))]
    with pytest.warns(DataWarning) as said:
        task = task_of(tmp_path, "\n".join(lines), drop=[])
    assert task.input_shape == (1,)
    (one,) = said
    shown = warnings.formatwarning(one.message, one.category, one.filename, one.lineno)
    assert shown == (
        "metaloss:0: DataWarning: left out, because each is constant, empty, or a text that "
        "differs in every training row: name, same\n"
    )
