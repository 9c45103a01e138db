"""What a learner does with states, guards and batches that are refused."""

import copy

import pytest
import torch
from torch import nn

from metaloss.errors import DivergedError, MetalossError
from metaloss.inner import Adam
from metaloss.losses import MLPLoss

from .learner_setups import learner_of, net, pair, seeded


@pytest.mark.parametrize("where", ["batch", "meta_batch"])
def test_a_step_that_is_not_finite_is_not_taken(where):
    model, loss = net(nn.BatchNorm1d(8)), seeded(MLPLoss).double()
    learner = learner_of(model, loss, inner=Adam(lr=0.01))
    good = learner.step(pair(0), pair(1))
    assert bool(good.taken)
    before = copy.deepcopy(learner.state_dict())
    bad = pair(2)
    bad[0][0, 0] = float("nan")
    given = {"batch": pair(3), "meta_batch": pair(4), where: bad}
    losses = learner.step(given["batch"], given["meta_batch"])
    assert not bool(losses.taken)
    after = learner.state_dict()
    for name in ("model", "loss"):
        for key, value in before[name].items():
            assert torch.equal(after[name][key], value), key
    for name in ("optimizer", "outer"):
        for one, other in zip(after[name], before[name], strict=True):
            assert torch.equal(one, other)
    assert bool(learner.step(pair(5), pair(6)).taken)
    unguarded = learner_of(net(nn.Tanh()), guard="off")
    assert unguarded.step(given["batch"], given["meta_batch"]).taken is None
    strict = learner_of(net(nn.Tanh()), guard="raise")
    with pytest.raises(DivergedError, match=r"step 0: a result is not finite \(guard=raise\)"):
        strict.step(given["batch"], given["meta_batch"])


def test_a_state_that_is_refused_changes_nothing():
    learner = learner_of(net(nn.Tanh()))
    other = learner_of(net(nn.ReLU(), nn.Linear(8, 8)))
    adam = learner_of(net(nn.Tanh()), inner=Adam(lr=0.01))
    adam.step(pair(0), pair(1))
    frozen = net(nn.Tanh())
    frozen[0].requires_grad_(False)
    states = {
        "the state is of another model": other.state_dict(),
        "another optimizer or model": adam.state_dict(),
        "other parameters frozen": learner_of(frozen).state_dict(),
        "no entry 'outer'": {k: v for k, v in learner.state_dict().items() if k != "outer"},
    }
    before = copy.deepcopy(learner.state_dict())
    for message, state in states.items():
        with pytest.raises(MetalossError, match=message):
            learner.load_state_dict(state)
        for key, value in before["model"].items():
            assert torch.equal(learner.model.state_dict()[key], value)


WRONG_ENTRIES = {
    "'model' of the state is a list": {"model": [1]},
    "'loss' of the state is a NoneType": {"loss": None},
    "'optimizer' of the state is a dict": {"optimizer": {"state": {}}},
    "'outer' of the state is a NoneType": {"outer": None},
    "'steps' of the state is a str": {"steps": "three"},
    "'steps' of the state is -3": {"steps": -3},
    "'trained' of the state is a NoneType": {"trained": None},
    "'parked' of the state is a dict": {"parked": {"0.weight": 1}},
    "'attributes' of the state is a list": {"attributes": [1]},
    "another model: '0.weight' is a list, expected a tensor": {"model": torch.Tensor.tolist},
    "another model: '0.weight' is a tensor of .* torch.int64": {"model": torch.Tensor.long},
    "'0.weight' is a tensor without values": {"model": lambda one: one.to("meta")},
    "another loss: 'layers.0.weight' is a list": {"loss": torch.Tensor.tolist},
    "values; expected .* with the shapes and types": {"outer": torch.Tensor.cfloat},
    "values; expected .* types of this learner": {"optimizer": torch.Tensor.tolist},
}


@pytest.mark.parametrize("message", WRONG_ENTRIES)
def test_a_state_with_values_of_other_types_is_refused_in_one_line(message):
    learner = learner_of(net(nn.Tanh()))
    state = learner.state_dict()
    ((entry, wrong),) = WRONG_ENTRIES[message].items()
    if callable(wrong):
        own = state[entry]
        wrong = (
            {name: wrong(value) for name, value in own.items()}
            if isinstance(own, dict)
            else [wrong(value) for value in own]
        )
    learner.step(pair(0), pair(1))
    before = copy.deepcopy(learner.state_dict())
    with pytest.raises(MetalossError, match=message) as caught:
        learner.load_state_dict({**state, entry: wrong})
    assert "\n" not in str(caught.value)
    for name in ("model", "loss"):
        for key, value in before[name].items():
            assert torch.equal(learner.state_dict()[name][key], value)
    assert learner.state_dict()["steps"] == 1


def test_the_state_of_a_learner_in_double_precision_is_rounded_to_that_of_the_model():
    wide, narrow = (
        learner_of(net(nn.Tanh()).to(kind), seeded(MLPLoss).to(kind), inner=Adam(lr=0.01))
        for kind in (torch.float64, torch.float32)
    )
    wide.step(pair(0), pair(1))
    kinds = [one.dtype for one in narrow.state_dict()["optimizer"]]
    narrow.load_state_dict(wide.state_dict())
    after = narrow.state_dict()["optimizer"]
    assert [one.dtype for one in after] == kinds
    for one, other in zip(after, wide.state_dict()["optimizer"], strict=True):
        assert torch.equal(one, other.to(one.dtype))


def test_a_state_with_parked_layers_goes_on_bit_by_bit():
    def begun():
        model = net(nn.Tanh())
        learner = learner_of(model, inner=Adam(lr=0.05))
        return model, learner

    (model, whole), (copied, half) = begun(), begun()
    for step in range(3):
        for one in (whole, half):
            one.step(pair(step), pair(step + 9))
    for one in (model, copied):
        one[0].requires_grad_(False)
    for one in (whole, half):
        one.step(pair(3), pair(13))
    fresh_model, fresh = begun()
    fresh_model[0].requires_grad_(False)
    fresh.load_state_dict(half.state_dict())
    for one in (model, fresh_model):
        one[0].requires_grad_(True)
    for one in (whole, fresh):
        one.step(pair(4), pair(14))
    for key, value in model.state_dict().items():
        assert torch.equal(fresh_model.state_dict()[key], value)


def test_batches_of_other_forms_are_taken_or_refused_in_one_line():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, a, b):
            return {"extra": a, "logits": self.layer(a * b)}

    inputs, targets = pair(0)
    learner = learner_of(seeded(Two).double())
    for given in ((inputs, inputs), {"a": inputs, "b": inputs}):
        assert bool(learner.step((given, targets), (given, targets)).taken)
    for wrong, message in (
        ((inputs, inputs, targets, targets), "batch is a tuple of 4 .*: expected"),
        ({"x": inputs}, "batch is a dict with the entries 'x': expected"),
    ):
        with pytest.raises(MetalossError, match=message):
            learner.step(wrong)
    with torch.inference_mode():
        with pytest.raises(MetalossError, match=r"under torch\.inference_mode"):
            learner.step(((inputs, inputs), targets))
        held = inputs * 2
    assert bool(learner.step(((held, held), targets)).taken)
