from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metaloss import train
from metaloss.errors import MetalossError
from metaloss.losses import ClassReduction, MLPLoss
from metaloss.losses.mlp import Activation, MLPLossConfig, Output
from metaloss.losses.rows import mean_prediction
from metaloss.types import Link, Row

from .families import build, phi_of, rows

FORMULAS = {
    Activation.smooth_leaky_relu: lambda x: np.logaddexp(0, 10 * x) / 10 * 0.99 + 0.01 * x,
    Activation.relu: lambda x: np.maximum(x, 0),
    Activation.tanh: np.tanh,
    Activation.silu: lambda x: x / (1 + np.exp(-x)),
}


def _by_hand(loss, prediction, target):
    """Return ℓ(t, p) of one output at a time, as the papers write it."""
    phi = {name: value.numpy() for name, value in phi_of(loss).items()}
    act = FORMULAS[loss.config.activation]
    last = len(loss.config.hidden)
    values = np.empty(prediction.shape)
    for place in np.ndindex(*prediction.shape):
        x = np.array([target[place], prediction[place]])
        for layer in range(last + 1):
            x = phi[f"layers.{layer}.weight"] @ x + phi.get(f"layers.{layer}.bias", 0.0)
            x = act(x) if layer < last else x
        if loss.config.output is Output.softplus:
            x = np.logaddexp(0, x)
        values[place] = x[0]
    return values


@pytest.mark.parametrize("activation", list(Activation))
@pytest.mark.parametrize("output", list(Output))
@pytest.mark.parametrize("bias", [True, False])
def test_softmax_values_equal_the_formula(activation, output, bias):
    loss = build("mlp", hidden=[5, 4], activation=activation, output=output, bias=bias)
    outputs, target = rows(Link.softmax)
    p = np.exp(outputs.numpy())
    p /= p.sum(1, keepdims=True)
    expected = _by_hand(loss, p, np.eye(4)[target]).mean(1).mean()
    np.testing.assert_allclose(loss(outputs, target).item(), expected, rtol=1e-10)


@pytest.mark.parametrize("reduction", list(ClassReduction))
def test_regression_values_equal_the_formula(reduction):
    loss = build("mlp", Link.identity, class_reduction=reduction)
    outputs, target = rows(Link.identity)
    values = _by_hand(loss, outputs.numpy(), target.numpy())
    expected = (values.mean(1) if reduction is ClassReduction.mean else values.sum(1)).mean()
    # softplus(βx) is taken as βx beyond βx = 20, an error of e⁻²⁰/β.
    np.testing.assert_allclose(loss(outputs, target).item(), expected, rtol=1e-8)


def test_the_activation_has_the_slopes_of_its_options():
    loss = build("mlp", gamma=0.2, beta=7.0)
    x = torch.tensor([-50.0, 0.0, 50.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss.activation(x).sum(), x)
    expected = torch.tensor([0.2, 0.5 * 0.8 + 0.2, 1.0], dtype=torch.float64)
    torch.testing.assert_close(slope, expected)


def test_ml3_has_no_biases_and_stays_positive():
    loss = build(
        "mlp", hidden=[50, 50], activation=Activation.relu, output=Output.softplus, bias=False
    )
    assert sum(p.numel() for p in loss.parameters()) == 2 * 50 + 50 * 50 + 50
    for seed in range(5):
        assert loss(*rows(Link.softmax, seed=seed)) > 0


def test_adalfl_is_the_default_without_the_one_parameter_that_moves_nothing():
    shapes = {name: tuple(p.shape) for name, p in build("mlp").named_parameters()}
    assert shapes == {
        "layers.0.weight": (40, 2),
        "layers.0.bias": (40,),
        "layers.1.weight": (40, 40),
        "layers.1.bias": (40,),
        "layers.2.weight": (1, 40),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": []}, r"loss.hidden=\[\]: expected one or more widths ≥ 1"),
        ({"hidden": [4, 0]}, r"loss.hidden=\[4, 0\]"),
        ({"beta": 0.0}, "loss.beta=0.0: expected a positive number"),
        ({"beta": float("nan")}, "loss.beta=nan: expected a positive number"),
        ({"gamma": -0.1}, "loss.gamma=-0.1: expected a number from 0 to 1"),
        (
            {"class_offsets": -2},
            "loss.class_offsets=-2: expected the number of classes, 0 for none",
        ),
        ({"gamma": 1.1}, "loss.gamma=1.1: expected a number from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(MetalossError, match=message):
        MLPLossConfig(**options)


@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5)])
def test_offsets_shift_the_raw_outputs_of_their_classes(link, shape):
    plain, shifted = build("mlp", link), build("mlp", link, class_offsets=4)
    offsets = torch.tensor([0.3, -0.2, 0.0, 0.7], dtype=torch.float64)
    with torch.no_grad():
        shifted.offsets.copy_(offsets)
    outputs, targets = rows(link, shape)
    outputs.requires_grad_()
    moved = outputs + 4 * offsets.view(1, 4, *[1] * (len(shape) - 2))
    expected = plain(moved, targets)
    found = shifted(outputs, targets)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (slope,) = torch.autograd.grad(expected, moved)
    (of_offsets,) = torch.autograd.grad(found, shifted.offsets)
    by_class = slope.transpose(0, 1).reshape(4, -1).sum(1)
    assert by_class.abs().max() > 0
    torch.testing.assert_close(of_offsets, 4 * by_class, rtol=1e-10, atol=1e-12)


def test_offsets_for_another_number_of_classes_are_refused_before_anything_is_written(tmp_path):
    words = ["task=digits", "loss=mlp", "loss.class_offsets=7", f"output={tmp_path / 'run'}"]
    with pytest.raises(MetalossError, match=r"class_offsets=7: expected 10, for raw outputs"):
        train(words)
    assert not (tmp_path / "run").exists()


def test_offsets_learn_which_classes_are_rare(tmp_path):
    words = ["task=digits", "task.imbalance=20", "model=linear", "schedule=online", "loss=mlp"]
    more = [
        "loss.class_offsets=10",
        "loss.hidden=[8]",
        "start.steps=300",
        "steps=250",
        "tracker=[]",
    ]
    run = train([*words, *more, "meta_optimizer.lr=1e-2", f"output={tmp_path / 'run'}"])
    # Class 0 is the largest, the last one twenty times smaller: a falling line.
    assert run.loss.config.class_offsets == 10
    ranks = run.loss.offsets.detach().argsort().argsort().double()
    expected = torch.arange(10.0, dtype=torch.float64).flip(0)
    assert torch.corrcoef(torch.stack([ranks, expected]))[0, 1] > 0.7


def test_the_task_says_how_many_classes_there_are_and_regression_has_none():
    options = MLPLossConfig(class_offsets=-1)
    for link, outputs, expected in (
        (Link.softmax, 7, 7),
        (Link.sigmoid, 3, 3),
        (Link.identity, 1, 0),
    ):
        task = SimpleNamespace(link=link, outputs=outputs)
        assert options.for_task(task).class_offsets == expected
    assert MLPLossConfig() == options
    alone = MLPLoss(options)
    assert alone.config.class_offsets == 0
    assert "offsets" not in dict(alone.named_parameters())


def test_an_offset_shifts_a_single_output_without_a_class_axis():
    loss = build("mlp", "sigmoid", class_offsets=1)
    with torch.no_grad():
        loss.offsets.fill_(0.3)
    outputs, targets = rows(Link.sigmoid, (6, 1))
    assert loss(outputs[:, 0], targets[:, 0]).item() == loss(outputs, targets).item()


def test_an_average_without_visits_is_seen():
    loss = build("mlp", "softmax", inputs=["target", "prediction", "average"])
    outputs, targets = rows(Link.softmax, (6, 3))
    average = torch.rand(6, 3).softmax(1)
    alone = loss(outputs, targets, row=Row(average=average))
    often = Row(average=average, visits=torch.full((6,), 1e6))
    assert alone.item() == loss(outputs, targets, row=often).item()
    assert alone.item() != loss(outputs, targets).item()
    with pytest.raises(MetalossError, match="expected the average of the visits"):
        loss(outputs, targets, row=Row(visits=torch.ones(6)))


@pytest.mark.parametrize("decay", [0.0, 0.9, 1 - 1e-6, 1 - 1e-8, 1 - 1e-12])
def test_the_average_of_equal_predictions_is_their_value_at_any_decay(decay):
    average, visits = torch.zeros(2, 2), torch.tensor([1.0, 40.0])
    for visit in range(40):  # as a run does
        seen = (visit < visits).unsqueeze(1)
        average = torch.where(seen, decay * average + (1 - decay) * 0.25, average)
    mean = mean_prediction(Row(average=average, visits=visits), decay, Link.softmax)
    torch.testing.assert_close(mean, torch.full((2, 2), 0.25), rtol=1e-5, atol=0)
    alone = Row(average=average, visits=torch.full((2,), torch.inf))
    assert torch.equal(mean_prediction(alone, decay, Link.softmax), average)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Row(average=torch.zeros(4, 2)), r"Row\(average=...\) is \(4, 2\): expected .* \(4, 3\)"),
        (
            Row(average=torch.zeros(4, 3), visits=torch.zeros(3)),
            r"visits=...\) is \(3,\): exp",
        ),
        (Row(progress=0.5), r"Row\(progress=...\) is float: expected a tensor \(4,\)"),
        (Row(memory=torch.zeros(4)), r"Row\(memory=...\) is \(4,\): expected a tensor \(4, 2\)"),
    ],
)
def test_a_row_of_another_shape_is_refused_in_one_line(row, message):
    loss = build(
        "mlp", "softmax", inputs=[*MLPLossConfig().inputs, "average", "memory", "progress"]
    )
    with pytest.raises(MetalossError, match=message):
        loss(*rows(Link.softmax, (4, 3)), row=row)
