"""What trainers of other libraries need of a learner: trusted batches, rates, a state."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from metaloss import AdamW
from metaloss.core.learner.following import Followed
from metaloss.core.learner.trusted import TrustedBatches
from metaloss.errors import MetalossError
from metaloss.inner import SGD

from .learner_setups import learner_of, net, pair


def rows(batches, count):
    return [next(batches).tolist() for _ in range(count)]


def test_batches_depend_on_their_number_alone():
    loader = DataLoader(torch.arange(10), batch_size=4, shuffle=True)
    before = torch.get_rng_state()
    whole = rows(TrustedBatches(loader, seed=3), 12)
    later = TrustedBatches(loader, seed=3)
    later.taken = 5
    assert rows(later, 7) == whole[5:]
    assert later.taken == 12
    assert torch.equal(torch.get_rng_state(), before)
    every = [row for batch in whole for row in batch]
    passes = [every[first : first + 10] for first in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len(set(map(tuple, passes))) == 4
    assert rows(TrustedBatches(loader, seed=4), 12) != whole
    in_order = DataLoader(torch.arange(10), batch_size=4)
    assert rows(TrustedBatches(in_order), 3) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]


def test_processes_share_the_batches_of_one():
    loader = DataLoader(torch.arange(9), batch_size=2, shuffle=True)
    ranks = [rows(TrustedBatches(loader, rank=rank, size=2), 6) for rank in range(2)]
    both = DataLoader(torch.arange(9), batch_size=4, shuffle=True)
    assert [a + b for a, b in zip(*ranks, strict=True)] == rows(TrustedBatches(both), 6)


class Counting(IterableDataset):
    def __iter__(self):
        return iter(range(5))


def test_other_loaders_begin_again_and_are_skipped_to_a_number():
    own = WeightedRandomSampler([1.0, 0.0, 0.0], 2)
    assert rows(TrustedBatches(DataLoader(torch.arange(3), sampler=own)), 3) == [[0]] * 3
    batches = TrustedBatches(DataLoader(Counting(), batch_size=2))
    assert rows(batches, 5) == [[0, 1], [2, 3], [4], [0, 1], [2, 3]]
    batches.taken = 2
    assert rows(batches, 1) == [[4]]


def test_what_is_no_loader_or_empty_is_refused():
    with pytest.raises(MetalossError, match=r"are a list: expected a torch\.utils\.data\.Data"):
        TrustedBatches([pair(0)])
    with pytest.raises(MetalossError, match="has no rows"):
        TrustedBatches(DataLoader(torch.zeros(0)))


def test_rates_are_those_that_a_scheduler_of_torch_has_set():
    def run(live):
        model = net(nn.Tanh())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        learner = learner_of(model, inner=optimizer if live else scheduler)
        followed = Followed(learner, optimizer)
        for step in range(3):
            if live:
                assert followed.take_rates() == [0.3 * 0.5**step]
            learner.step(pair(step), pair(9))
            if live:
                optimizer.step()  # without gradients it does nothing
                scheduler.step()
        return model.state_dict()

    one, other = run(True), run(False)
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-12, atol=0)


def test_a_scheduler_that_changes_the_momentum_is_refused():
    model = net(nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    followed = Followed(learner_of(model, inner=optimizer), optimizer)
    optimizer.param_groups[0]["momentum"] = 0.8
    with pytest.raises(MetalossError, match=r"momentum of group 0 .* from 0\.9 to 0\.8"):
        followed.take_rates()


def test_a_state_without_the_model_keeps_its_weights():
    first, second = (learner_of(net(nn.Tanh()), inner=AdamW(lr=0.02)) for _ in range(2))
    first.step(pair(0), pair(1))
    state = first.state_dict(model=False)
    assert "model" not in state
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(state)
    for learner in (first, second):
        learner.step(pair(2), pair(3))
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_the_norm_of_the_gradient_is_limited_by_the_learner_or_its_optimizer():
    def weight(**given):
        model = net(nn.Tanh())
        learner_of(model, **given).step(pair(0), pair(1))
        return model[0].weight.detach()

    plain, limited = weight(inner=SGD(lr=0.3)), weight(inner=SGD(lr=0.3, clip=1e-4))
    assert not torch.equal(plain, limited)
    assert torch.equal(weight(inner=SGD(lr=0.3), clip=1e-4), limited)
    assert torch.equal(weight(inner=SGD(lr=0.3, clip=1e-4), clip=0), plain)
    model = net(nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    learner_of(model, inner=optimizer, clip=1e-4).step(pair(0), pair(1))
    torch.testing.assert_close(model[0].weight.detach(), limited)
    with pytest.raises(MetalossError, match=r"clip=-1: expected a number ≥ 0"):
        weight(clip=-1)


def test_half_precision_is_that_of_the_passes_alone():
    def run(**given):
        model = net(nn.BatchNorm1d(8), nn.ReLU()).float()
        learner = learner_of(model, loss=None, **given)
        (x, y), (u, v) = pair(0), pair(1)
        losses = learner.step((x.float(), y), (u.float(), v))
        assert losses.taken
        return model, float(losses.train_task[0])

    (model, narrow), (_, wide) = run(precision="bf16"), run()
    assert model[0].weight.dtype == torch.float32
    assert narrow != wide
    assert abs(narrow - wide) < 0.02 * wide
    with pytest.raises(MetalossError, match="unknown precision 'bf61': did you mean 'bf16'"):
        run(precision="bf61")
