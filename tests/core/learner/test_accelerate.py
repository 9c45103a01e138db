"""A learner in a loop that Hugging Face's Accelerate has prepared."""

import accelerate
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from metaloss import MLPLoss

from .learner_setups import learner_of, net, pair, seeded


@pytest.fixture
def accelerator():
    found = accelerate.Accelerator(cpu=True)
    yield found
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def model_of():
    return net(nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Tanh())


def loader_of():
    return DataLoader(TensorDataset(*pair(0, 40)), batch_size=10)


def optimizer_of(model):
    return torch.optim.AdamW(model.parameters(), lr=0.02)


def assert_equal(one, other):
    for a, b in ((one.model, other.model), (one.loss, other.loss)):
        for name, value in b.state_dict().items():
            assert torch.equal(a.state_dict()[name], value), name


def test_prepared_parts_train_as_plain_ones(accelerator):
    model = model_of()
    prepared, optimizer, loader = accelerator.prepare(model, optimizer_of(model), loader_of())
    learner = learner_of(accelerator.unwrap_model(prepared), inner=optimizer)
    plain = model_of()
    other = learner_of(plain, inner=optimizer_of(plain))
    for given, own in zip(loader, loader_of(), strict=True):
        losses = learner.step(given, pair(7))
        assert losses.taken
        other.step(own, pair(7))
    assert_equal(learner, other)
    assert not torch.equal(model[0].weight, model_of()[0].weight)
    assert not torch.equal(learner.loss.layers[0].weight, seeded(MLPLoss).layers[0].weight)


def test_its_checkpoints_hold_the_whole_learner(accelerator, tmp_path):
    def make():
        model = accelerator.prepare(model_of())
        return learner_of(model, inner=optimizer_of(model), ema=0.9)

    whole, first, second = make(), make(), make()
    accelerator.register_for_checkpointing(first)
    for step in range(3):
        for learner in (whole, first):
            learner.step(pair(step), pair(20 + step))
    accelerator.save_state(tmp_path / "state")
    accelerator._custom_objects[:] = [second]
    accelerator.load_state(tmp_path / "state")
    assert_equal(second, first)
    for step in range(3, 6):
        for learner in (whole, second):
            learner.step(pair(step), pair(20 + step))
    assert_equal(second, whole)
    for name, value in whole.ema_model().state_dict().items():
        assert torch.equal(second.ema_model().state_dict()[name], value), name
