"""A learned loss in the user's own loop."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import metaloss
from metaloss import Learner
from metaloss.errors import MetalossError
from metaloss.inner import SGD, Adam
from metaloss.losses import CrossEntropy

from ..plain_autograd_loop import Hand, double_setup
from ..small_setups import blobs, fast, net
from .made_learners import assert_equal, batches, make, make_loss, values


@pytest.mark.parametrize("unroll", [1, 3])
def test_the_learner_equals_a_loop_by_hand(unroll):
    parts = double_setup("schedule=online", f"schedule.unroll={unroll}")
    hand = Hand(parts)
    model, loss = copy.deepcopy(parts.model), copy.deepcopy(parts.loss)
    engine = parts.engine
    learner = Learner(
        model,
        loss,
        task_loss=F.cross_entropy,
        inner=SGD(lr=0.3, momentum=0.5),
        meta_optimizer=engine,
    )
    streams = parts.advance.streams
    for first in range(0, 12, unroll):
        given = [streams["train"][first + k] for k in range(unroll)]
        meta = streams["meta/train"][first]
        seen = learner.step(given if unroll > 1 else given[0], meta)
        hand.forget()
        for batch in given:
            hand.step(batch)
        expected = F.cross_entropy(_outputs(hand, meta), meta.targets)
        torch.testing.assert_close(seen.meta_task, expected.detach())
        hand.move_phi(meta)
        assert seen.inner.shape == seen.train_task.shape == (unroll,)
    for module, aim in ((model, hand.theta), (loss, hand.phi)):
        for name, value in module.named_parameters():
            torch.testing.assert_close(value, aim[name], rtol=1e-9, atol=1e-12)


def _outputs(hand, batch):
    return torch.func.functional_call(hand.net, hand.theta, (batch.inputs,))


def test_the_learner_equals_the_trainer(tmp_path):
    words = ("schedule=online", "steps=15", "start=keep", "inner.lr=0.1", "inner.momentum=0.9")
    words = [*fast(*words, own_loss=True), f"output={tmp_path}"]
    run = metaloss.train(words, task=blobs(), model=net(nn.BatchNorm1d(5)), loss=make_loss())
    learner = make(nn.BatchNorm1d(5))
    for batch, meta_batch in batches(15):
        learner.step(batch, meta_batch)
    assert_equal(values(learner), {**run.model.state_dict(), **dict(run.loss.named_parameters())})


def test_without_a_meta_batch_the_loss_stays():
    learner = make()
    before = values(learner)
    (batch, _), *_ = batches(1)
    losses = learner.step(batch)
    after = values(learner)
    assert losses.meta_task.isnan()
    assert losses.inner.shape == (1,)
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("layers.")


def test_what_the_user_writes_is_what_the_next_step_starts_from():
    one, other = make(), make()
    pairs = batches(2)
    one.step(*pairs[0])
    with torch.no_grad():
        one.model[0].weight.mul_(2)
        one.loss.layers[0].weight.mul_(2)
    assert not torch.equal(one.model[0].weight, other.model[0].weight)
    other.step(*pairs[0])
    with torch.no_grad():
        other.model[0].weight.mul_(2)
        other.loss.layers[0].weight.mul_(2)
    one.step(*pairs[1])
    other.step(*pairs[1])
    assert_equal(values(one), values(other))


def test_model_and_loss_stay_the_users_own_objects():
    model, loss = net(nn.BatchNorm1d(5)), make_loss()
    parameters = [*model.parameters(), *loss.parameters()]
    learner = Learner(model, loss, task_loss=F.cross_entropy)
    assert learner.model is model
    assert learner.loss is loss
    for pair in batches(3):
        learner.step(*pair)
    now = [*model.parameters(), *loss.parameters()]
    assert all(a is b for a, b in zip(parameters, now, strict=True))
    assert int(model[1].num_batches_tracked) == 3
    assert all(p.requires_grad and p.grad is None for p in parameters)
    # And they go on in any other loop.
    loss(model(blobs().train.inputs), blobs().train.targets).backward()
    assert model[0].weight.grad.abs().max() > 0


def test_batches_of_a_data_loader_are_taken_as_they_come():
    task = blobs()
    loader = DataLoader(TensorDataset(*task.train), batch_size=8)
    one, other = make(), make()
    for batch in loader:
        assert isinstance(batch, list)
        one.step(batch, batch)
        other.step(tuple(batch), meta_batch=tuple(batch))
    assert_equal(values(one), values(other))
    pair = list(loader)[:2]
    one.step(pair, pair[0])
    other.step([tuple(batch) for batch in pair], pair[0])
    assert_equal(values(one), values(other))
    found = one.evaluate(loader)
    with torch.no_grad():
        expected = F.cross_entropy(one.model.eval()(task.train.inputs), task.train.targets)
    assert found == pytest.approx(expected.item(), rel=1e-6)


def test_a_saved_learner_goes_on_bit_by_bit(tmp_path):
    pairs = batches(12)
    whole, first = (make(nn.BatchNorm1d(5), nn.Dropout(0.3), inner=Adam(lr=0.01)) for _ in "ab")
    for pair in pairs:
        whole.step(*pair)
    for pair in pairs[:6]:
        first.step(*pair)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make(nn.BatchNorm1d(5), nn.Dropout(0.3), inner=Adam(lr=0.01))
    second.load_state_dict(torch.load(file, weights_only=True))
    for pair in pairs[6:]:
        second.step(*pair)
    assert_equal(values(second), values(whole))


def test_a_state_is_a_copy_that_can_be_gone_back_to():
    learner = make()
    pairs = batches(3)
    learner.step(*pairs[0])
    state, before = learner.state_dict(), values(learner)
    learner.step(*pairs[1])
    once = values(learner)
    learner.load_state_dict(state)
    assert_equal(values(learner), before)
    learner.step(*pairs[1])
    assert_equal(values(learner), once)


def test_a_state_of_another_optimizer_is_refused():
    with pytest.raises(MetalossError, match="it was made with another optimizer or model"):
        make().load_state_dict(make(inner=Adam(lr=0.01)).state_dict())


def test_seeds_decide_the_dropout():
    learners = [make(nn.Dropout(0.5), seed=seed) for seed in (0, 0, 1)]
    for learner in learners:
        learner.step(*batches(1)[0])
    first, same, other = (values(learner)["0.weight"] for learner in learners)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_evaluation_is_a_mean_over_rows_in_evaluation_mode():
    learner = make(nn.BatchNorm1d(5), nn.Dropout(0.5))
    for pair in batches(3):
        learner.step(*pair)
    before = values(learner)
    task = blobs()
    parts = [(task.test.inputs[a:b], task.test.targets[a:b]) for a, b in ((0, 5), (5, 24))]
    found = learner.evaluate(parts), learner.evaluate(parts, metric=task.metric)
    assert_equal(values(learner), before)
    assert learner.model.training
    with torch.no_grad():
        outputs = learner.model.eval()(task.test.inputs)
    assert found[0] == pytest.approx(F.cross_entropy(outputs, task.test.targets).item(), rel=1e-5)
    assert found[1] == pytest.approx(task.metric(outputs, task.test.targets).item())


def test_a_fixed_loss_trains_without_a_meta_batch():
    learner = Learner(net(), CrossEntropy(), task_loss=F.cross_entropy, inner=SGD(lr=0.5))
    task = blobs()
    before = learner.evaluate([task.train])
    for batch, _ in batches(40):
        learner.step(batch)
    assert learner.evaluate([task.train]) < 0.8 * before
