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
from metaloss.core.batches.streams import BatchStream
from metaloss.errors import MetalossError
from metaloss.inner import SGD, Adam
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.losses import CrossEntropy, MLPLoss
from metaloss.losses.mlp import MLPLossConfig
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed

from ..plain_autograd_loop import Hand, double_setup
from ..small_setups import blobs, fast, net


def make_loss():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return MLPLoss(MLPLossConfig(hidden=[6]))


def make(*parts, **given):
    given = {"inner": SGD(lr=0.1, momentum=0.9), **given}
    return Learner(net(*parts), make_loss(), task_loss=F.cross_entropy, **given)


def batches(count, seed=0):
    task = blobs()
    train = BatchStream(task.train, size=8, seed=seed, purpose="train")
    valid = BatchStream(task.valid, size=8, seed=seed, purpose="meta/train")
    return [(train[k], valid[k]) for k in range(count)]


def values(learner):
    state = {**learner.model.state_dict(), **learner.loss.state_dict()}
    return {name: value.clone() for name, value in state.items()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


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
    words = [*fast(*words), f"output={tmp_path}"]
    run = metaloss.train(words, task=blobs(), model=net(nn.BatchNorm1d(5)), loss=make_loss())
    learner = make(nn.BatchNorm1d(5))
    for batch, meta_batch in batches(15):
        learner.step(batch, meta_batch)
    assert_equal(values(learner), {**run.model.state_dict(), **dict(run.loss.named_parameters())})


def test_without_a_judge_the_loss_stays():
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


def test_a_fixed_loss_trains_without_a_judge():
    learner = Learner(net(), CrossEntropy(), task_loss=F.cross_entropy, inner=SGD(lr=0.5))
    task = blobs()
    before = learner.evaluate([task.train])
    for batch, _ in batches(40):
        learner.step(batch)
    assert learner.evaluate([task.train]) < 0.8 * before


def test_parts_are_taken_by_their_registered_names():
    named, made = (
        make(inner="adam", meta_optimizer="higher"),
        make(inner=Adam(), meta_optimizer=Higher()),
    )
    before = values(named)
    for batch, judge in batches(3):
        named.step(batch, judge), made.step(batch, judge)
    assert_equal(values(named), values(made))
    assert any(not torch.equal(before[name], now) for name, now in values(named).items())


def _frozen():
    model = net()
    model.requires_grad_(False)
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(inner=torch.optim.SGD), "inner is a type: expected InnerOptimizer, such as"),
        (lambda: make(meta_optimizer=SGD()), "meta_optimizer is a SGD: expected OuterRule, such"),
        (lambda: make(meta_optimizer="mixt"), "unknown meta_optimizer 'mixt': did you mean 'mixed"),
        (
            lambda: make(meta_optimizer=Mixed(lr_schedule=RateSchedule.cosine)),
            "lr_schedule=cosine: a loop of your own has no known end",
        ),
        (
            lambda: Learner(_frozen(), make_loss(), task_loss=F.cross_entropy),
            "the model has no parameters that require a gradient",
        ),
        (lambda: make(compile="onn"), "unknown compile 'onn': did you mean 'on'"),
        (lambda: make(compile="auto"), "unknown compile 'auto'"),
        (
            lambda: make(compile="trace", meta_optimizer="higher").step(*batches(1)[0]),
            "compile=trace: only the engines mixed and finite_difference .*: use compile=off",
        ),
        (
            lambda: make(nn.RReLU(), compile="trace").step(*batches(1)[0]),
            "compile=trace: the model draws random numbers outside of nn.Dropout",
        ),
        (lambda: make().step([]), r"step\(\) was given an empty list"),
        (lambda: make().evaluate([]), r"evaluate\(\) was given no batches"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(MetalossError, match=message):
        call()


def test_an_engine_can_be_named():
    one, other = make(meta_optimizer="mixed"), make(meta_optimizer=Mixed())
    for pair in batches(2):
        one.step(*pair)
        other.step(*pair)
    assert_equal(values(one), values(other))


def _doubled(compile, *parts):
    learner = make(*copy.deepcopy(parts), compile=compile, inner=Adam(lr=0.01))
    model, loss = learner.model.double(), learner.loss.double()
    return Learner(
        model,
        loss,
        task_loss=F.cross_entropy,
        inner=Adam(lr=0.01),
        meta_optimizer=Mixed(lr=0.1),
        compile=compile,
    )


@pytest.mark.parametrize("unroll", [1, 3])
@pytest.mark.parametrize("parts", [(), (nn.Dropout(0.3),), (nn.BatchNorm1d(5),)], ids=str)
def test_traced_steps_are_the_eager_ones(unroll, parts):
    eager, traced = _doubled("off", *parts), _doubled("trace", *parts)
    doubled = [
        tuple((inputs.double(), targets) for inputs, targets in pair) for pair in batches(12)
    ]
    begun = values(eager)
    for first in range(0, 12, unroll):
        window = [batch for batch, _ in doubled[first : first + unroll]]
        judge = None if first == 3 else doubled[first][1]  # once nobody judges
        losses = [one.step(list(window), judge) for one in (eager, traced)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12, equal_nan=True)
    for name, value in values(eager).items():
        torch.testing.assert_close(values(traced)[name], value, rtol=1e-9, atol=1e-12)
        assert name.endswith("num_batches_tracked") or not torch.equal(value, begun[name])


@pytest.mark.slow
def test_a_compiled_step_of_ones_own_is_the_eager_one():
    eager, compiled = _doubled("off"), _doubled("on")
    for batch, judge in batches(3):
        pair = [(rows[0].double(), rows[1]) for rows in (batch, judge)]
        losses = [one.step(*pair) for one in (eager, compiled)]
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12)
    for name, value in values(eager).items():
        torch.testing.assert_close(values(compiled)[name], value, rtol=1e-9, atol=1e-12)
