"""What no task can hold is refused where it comes in, in one line."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from metaloss.data import TaskOptions, task_from_data
from metaloss.data.images.digits import Digits
from metaloss.data.targets.kinds import check_task
from metaloss.data.targets.metrics import error_rate
from metaloss.errors import MetalossError

from .three_classes import X, Y, error_of

DENSE = "; expected dense tensors of real numbers"


def marked(label, share=20):
    """Return targets of which some carry a mark."""
    targets = Y.clone()
    targets[:share] = label
    return targets


# ---------------------------------------------------------------------------------------- classes

HINT = "outputs=C in the options if some classes have no rows)"
WIDE = "train: 4 classes from 0 to {0}; expected 0 to C − 1 (or ignore_index={0} if that is not a "
LABELS = {
    255: f"{WIDE.format(255)}class; {HINT}",
    -1: "train: class -1; expected 0 to 2 (outputs=3), or ignore_index=-100 for targets to ignore",
    10**12: f"{WIDE.format(10**12)}class; {HINT}",
}


@pytest.mark.parametrize("label", LABELS)
def test_labels_out_of_range_are_refused(label):
    assert error_of((X, marked(label))) == LABELS[label]
    expected = (
        "train: class {}; expected 0 to 2 (outputs=3), or ignore_index=-100 for targets to ignore"
    )
    assert error_of((X, marked(label)), outputs=3) == expected.format(label)
    # A task loss of the user's own takes them no more than a learned loss does.
    own = {"task_loss": lambda a, b: F.cross_entropy(a, b, ignore_index=label), "outputs": 3}
    assert error_of((X, marked(label)), **own) == expected.format(label)
    for part in ("valid", "test"):
        parts = [(X, Y), (X, Y)][: 1 if part == "valid" else 2]
        assert error_of(*parts, (X, marked(label))) == expected.format(label).replace("train", part)


def test_classes_from_one_on_are_refused():
    message = f"train: 3 classes from 1 to 3; expected 0 to C − 1 (subtract 1; {HINT}"
    assert error_of((X, Y + 1)) == message
    assert task_from_data((X, Y + 1), options=TaskOptions(outputs=4)).outputs == 4


def test_identifiers_are_no_classes():
    assert error_of((X, torch.where(Y > 1, 5, 10**12))).startswith(
        "train: 2 classes from 5 to 10000"
    )


@pytest.mark.parametrize("label", [255, -1, 10**12, 1])
def test_an_ignored_class_counts_nowhere(label):
    targets, rest = marked(label), label != Y
    rest[:20] = False
    options = TaskOptions(ignore_index=label, outputs=3)
    task = task_from_data((X, targets), (X, targets), options=options)
    outputs = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    assert task.ignore_index == label
    expected = F.cross_entropy(outputs[rest], targets[rest])
    assert expected > 0
    torch.testing.assert_close(task.task_loss(outputs, targets), expected)
    assert task.metric(outputs, targets) == error_rate(outputs[rest], targets[rest])
    shares = torch.bincount(targets[rest], minlength=3) / rest.sum()
    entropy = torch.special.entr(shares.double()).sum().item()
    assert task.constant_loss == pytest.approx(entropy, rel=1e-6)


def test_outputs_are_counted_without_the_ignored_class():
    task = task_from_data((X, marked(255)), options=TaskOptions(ignore_index=255))
    assert task.outputs == 3
    assert task_from_data((X, marked(-100))).ignore_index == -100


def test_ignored_classes_need_classes():
    message = "expected class indices (integers with link=softmax)"
    assert message in error_of((X, X[:, 0]), ignore_index=255)
    assert message in error_of((X, Y % 2), ignore_index=255, link="sigmoid")
    assert "ignore_index=0.5: expected a whole number" in error_of((X, Y), ignore_index=0.5)


def test_a_task_loss_of_ones_own_is_tried_at_the_door():
    message = (
        "task_loss fails on targets of train: Target 255 is out of bounds.; expected a function of "
        "raw outputs (B, 3) and targets (B)"
    )
    options = {"ignore_index": 255, "outputs": 3}
    targets = marked(255, 0)
    targets[50] = 255  # in one row alone
    assert error_of((X, targets), task_loss=F.cross_entropy, **options) == message
    own = TaskOptions(task_loss=lambda a, b: F.cross_entropy(a, b, ignore_index=255), **options)
    assert task_from_data((X, targets), options=own).constant_loss == pytest.approx(
        np.log(3), rel=1e-2
    )
    nothing_reduced = torch.nn.CrossEntropyLoss(reduction="none")
    assert error_of((X, Y), task_loss=nothing_reduced).startswith(
        "task_loss returns (62,); expected"
    )


def test_tasks_from_elsewhere_can_be_checked():
    task = Digits().build(0)
    check_task(task)
    task.valid.targets[3] = 10
    message = r"^valid: class 10; expected 0 to 9 \(outputs=10\), or ignore_index=-100 for targets"
    with pytest.raises(MetalossError, match=message):
        check_task(task)


def test_labels_of_a_source_are_checked(monkeypatch):
    inputs, labels = Digits().load()
    labels[labels == 9] = 200
    monkeypatch.setattr(Digits, "load", lambda self: (inputs, labels))
    with pytest.raises(MetalossError, match=r"^train: class 200; expected 0 to 9"):
        Digits().build(0)


# ---------------------------------------------------------------------------------------- tensors

UNFIT = {
    "sparse": (lambda: (X.to_sparse(), Y), f"train: got a sparse tensor (torch.sparse_coo){DENSE}"),
    "sparse_target": (
        lambda: (X, Y.to_sparse()),
        f"train: got a sparse tensor (torch.sparse_coo){DENSE}",
    ),
    "complex": (lambda: (X + 0j, Y), f"train: got a tensor of torch.complex64{DENSE}"),
    "complex_target": (lambda: (X, X[:, 0] + 0j), f"train: got a tensor of torch.complex64{DENSE}"),
    "nested": (
        lambda: (torch.nested.nested_tensor([X[0], X[1, :2]], layout=torch.jagged), Y[:2]),
        f"train: got a nested tensor, whose rows differ in shape{DENSE}",
    ),
    "meta": (
        lambda: (X.to("meta"), Y),
        f"train: got a tensor on the meta device, which has no values{DENSE}",
    ),
    "objects": (
        lambda: (np.array([[1, None]] * 60, dtype=object), Y),
        f"train: got an array of object{DENSE}",
    ),
    "strings": (lambda: (X, np.array(["a"] * 60)), f"train: got an array of <U1{DENSE}"),
    "times": (
        lambda: (X.numpy().astype("M8[s]"), Y),
        f"train: got an array of datetime64[s]{DENSE}",
    ),
    "wide": (
        lambda: (X.numpy().astype(np.longdouble), Y),
        f"train: got an array of {np.dtype(np.longdouble)}{DENSE}",
    ),
    "masked": (
        lambda: (np.ma.masked_array(X.numpy(), mask=X.numpy() > 0), Y),
        f"train: got an array with masked values{DENSE}",
    ),
    "no_features": (
        lambda: (X[:, :0], Y),
        "train: inputs of shape (60, 0) have no values; expected at least one in each row",
    ),
    "no_targets": (
        lambda: (X, X[:, :0]),
        "train: targets of shape (60, 0) have no values; expected at least one in each row",
    ),
    "identifiers": (
        lambda: (torch.full((60, 2), 10**12), Y),
        "train: integer inputs from 1000000000000 to 1000000000000; expected tokens below 2³¹ "
        "(for measurements: inputs.float())",
    ),
    "lowest": (  # it has no absolute value
        lambda: (torch.full((60, 2), -(2**63)), Y),
        f"train: integer inputs from {-(2**63)} to {-(2**63)}; expected tokens below 2³¹ "
        "(for measurements: inputs.float())",
    ),
    "large": (
        lambda: (torch.full((60, 2), 1e300, dtype=torch.float64), Y),
        "train: inputs up to 1e+300; expected numbers below 3.4e+38, the largest of torch.float32",
    ),
    "infinite": (
        lambda: (X, torch.full((60,), float("inf"))),
        "train: targets hold NaN or infinity; expected finite numbers",
    ),
    "unsigned": (
        lambda: (X, np.full(60, 2**63, dtype=np.uint64)),
        "train: got integers ≥ 2⁶³; expected smaller ones",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_tensors_that_no_task_can_hold_are_refused(case):
    make, message = UNFIT[case]
    assert error_of(make()) == message


def test_arrays_of_other_byte_orders_and_strides_are_taken():
    plain = task_from_data((X, Y))
    for array in (X.numpy().astype(">f4"), np.ascontiguousarray(X.numpy()[::-1])[::-1]):
        assert torch.equal(task_from_data((array, Y)).train.inputs, plain.train.inputs)
