"""The table of costs is recomputed: parameters, operations, arithmetic."""

from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from metaloss import registry
from metaloss.compose import PAPER
from metaloss.inner import FunctionalModel, InnerProblem
from metaloss.losses import MLPLoss
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.types import Batch, InnerState, Link, Window

PAGE = Path(__file__).parents[2] / "docs" / "paper.md"
# (shape of a row, outputs) of each task, in the page's count.
TASKS = {
    "communities_crime": ((122,), 1),
    "diabetes": ((10,), 1),
    "california_housing": ((8,), 1),
    "mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "svhn": ((3, 32, 32), 10),
}


class Cost(NamedTuple):
    parameters: float
    forward: float
    ratio: float
    step: float
    steps: float
    run: float
    seconds: float


def page():
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = {row[0].strip("`"): row[1:] for row in cells if row[0].strip("`") in PAPER}
    return {name: Cost(*map(number, row)) for name, row in rows.items()}


def number(text):
    value, _, unit = text.replace(",", "").partition(" ")
    return float(value) * {"": 1, "s": 1, "h": 3600}[unit]


def network(name):
    row = PAPER[name]
    shape, outputs = TASKS[row.choices["task"]]
    part = registry.get("model", row.choices["model"])
    options = part.config_class(**row.options["model"])
    return part.build(options, input_shape=shape, outputs=outputs), shape, outputs


def counter():
    """Return torch's counter without its bookkeeping by module, which autograd.grad breaks."""

    class Everything(nullcontext):
        parents = frozenset({"Global"})

    found = FlopCounterMode(display=False)
    found.mod_tracker = Everything()
    return found


def test_every_row_is_on_the_page():
    assert set(page()) == set(PAPER)


@pytest.mark.parametrize("name", PAPER)
def test_parameters_and_forward_operations(name):
    with torch.device("meta"):
        model, shape, _ = network(name)
        with counter() as counted:
            model(torch.zeros(2, *shape))
    said = page()[name]
    assert said.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert said.forward == pytest.approx(counted.get_total_flops() / 2 / 1e6, rel=0.005)


@pytest.mark.parametrize("name", ["diabetes_mlp", "mnist_logistic", "mnist_mlp", "mnist_lenet5"])
def test_an_online_step_in_forwards(name):
    """The networks that are quick to count; the larger the network, the closer to nine."""
    with torch.random.fork_rng(devices=[]):
        model, shape, outputs = network(name)
        loss = MLPLoss(link=Link.softmax if outputs > 1 else Link.identity)
    functional = FunctionalModel(model)
    params, buffers = functional.state()
    inner = registry.get("inner", "sgd").config_class(**PAPER[name].options["inner"])
    problem = InnerProblem(
        model=functional,
        loss=loss,
        task_loss=F.cross_entropy if outputs > 1 else F.mse_loss,
        optimizer=inner,
    )
    targets = torch.zeros(2, dtype=torch.int64) if outputs > 1 else torch.ones(2, 1)
    batch, key = Batch(torch.ones(2, *shape), targets), torch.tensor(1)
    phi = {key: value.detach() for key, value in loss.named_parameters()}
    state = InnerState(params, buffers, inner.init(params))
    with counter() as counted:
        Mixed().meta_gradient(problem, phi, state, Window((batch,), (key,), batch, key))
    said = page()[name]
    found = counted.get_total_flops() / 2 / 1e6 / said.forward
    assert found == pytest.approx(said.ratio, rel=0.02)


@pytest.mark.parametrize("name", PAPER)
def test_the_arithmetic(name):
    said, row = page()[name], PAPER[name]
    assert said.steps == row.settings["steps"]
    assert 8 < said.ratio < 25
    assert said.step == pytest.approx(128 * said.forward * said.ratio / 1e3, rel=0.02)
    updates = said.steps + row.options["schedule"]["offline_steps"]
    assert said.run == pytest.approx(said.step * updates / 1e6, rel=0.005)
    assert said.seconds == pytest.approx(said.run * 1e15 / 10e12, rel=0.005)
