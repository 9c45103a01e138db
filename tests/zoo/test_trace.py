"""Steps rewritten by ``compile="trace"`` are the eager ones, or are refused in one line."""

import pytest
import torch

from metaloss.errors import MetalossError

from .every import KINDS
from .listed import listed
from .test_learner import close, learner_of, state_of

TRACED = [name for name, kind in KINDS.items() if kind.traces]
FEW = [n for n in TRACED if not KINDS[n].heavy][::24]
COMPILED = ["BatchNorm2d", "Dropout", "TransformerEncoder", "GRU, two layers"]


@pytest.mark.parametrize("name", listed(TRACED, heavy=lambda kind: kind.name not in FEW))
def test_traced_steps_are_the_eager_ones(name):
    same_steps(name, "trace")


@pytest.mark.faults
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_steps_are_the_eager_ones(name):
    same_steps(name, "on")


def same_steps(name, how):
    """Compare one step, two steps in a row, and a step without a meta-step."""
    kind = KINDS[name]
    batches = kind.batches(5)
    ends = []
    for compile in ("off", how):
        learner = learner_of(kind, "mixed", compile=compile)
        learner.step(batches[0], batches[1])
        losses = learner.step(batches[1:3], batches[3])
        learner.step(batches[4])
        ends.append((state_of(learner.model), dict(learner.loss.named_parameters()), losses))
    start = state_of(kind.model())
    assert any(not torch.equal(start[key], value) for key, value in ends[0][0].items())
    torch.testing.assert_close(ends[1], ends[0], **close(kind))


UNTRACED = [name for name, kind in KINDS.items() if kind.traces is None]


# torch says so of a hook on the first layer, in a loop of its own as well.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("name", listed(UNTRACED, heavy=lambda kind: True))
def test_what_is_not_traced_is_said_in_one_line_or_right(name):
    refusal = None
    try:
        same_steps(name, "trace")
    except MetalossError as error:
        refusal = str(error)
    assert refusal is None or "\n" not in refusal


@pytest.mark.parametrize("name", ["BatchNorm in evaluation mode, frozen", "quantile"])
def test_what_pytorch_cannot_trace_is_said_in_one_short_line(name, capfd):
    kind = KINDS[name]
    learner = learner_of(kind, "mixed", compile="trace")
    with pytest.raises(MetalossError, match="fails to trace an operation or its deriv") as said:
        learner.step(*kind.batches(2))
    assert "\n" not in str(said.value)
    assert len(str(said.value)) < 300
    assert "fake_tensor" not in capfd.readouterr().err


def test_a_failed_trace_leaves_the_next_one_alone():
    """PyTorch prints the tensor in its error, and holds a guard of its dispatcher for that long."""
    with pytest.raises(MetalossError, match="cannot be compiled"):
        same_steps("quantile", "trace")
    same_steps(FEW[0], "trace")
    with pytest.raises(MetalossError, match="the model or a loss depends on values"):
        same_steps("boolean mask", "trace")
