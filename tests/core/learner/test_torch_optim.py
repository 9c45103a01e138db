"""Optimizers and schedulers of ``torch.optim`` as ``inner=``; rates; the moving average."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import metaloss
from metaloss import SGD, MLPLoss
from metaloss.errors import MetalossError
from metaloss.inner import RateSchedule
from metaloss.losses import Scaled

from .explicit_unroll import slope_of
from .learner_setups import learner_of, net, pair, refusal_of, seeded
from .test_param_groups import assert_same_state, plain_step


def two(model, **options):
    return [
        {"params": model[0].parameters(), **options},
        {"params": model[2].parameters()},
    ]


OPTIMIZERS = {
    "sgd": lambda m: torch.optim.SGD(two(m, lr=0.05), lr=0.2, momentum=0.8, weight_decay=0.01),
    "dampening": lambda m: torch.optim.SGD(m.parameters(), lr=0.2, momentum=0.8, dampening=0.3),
    "nesterov": lambda m: torch.optim.SGD(
        two(m, nesterov=False), lr=0.1, momentum=0.8, nesterov=True
    ),
    "adam": lambda m: torch.optim.Adam(two(m, betas=(0.5, 0.9)), lr=0.02, weight_decay=0.1),
    "decoupled": lambda m: torch.optim.Adam(
        m.parameters(), lr=0.02, weight_decay=0.1, decoupled_weight_decay=True
    ),
    "adamw": lambda m: torch.optim.AdamW(two(m, weight_decay=0.0), lr=0.02, foreach=False),
    "tensor_lr": lambda m: torch.optim.AdamW(
        m.parameters(), lr=torch.tensor(0.02, dtype=torch.float64)
    ),
    "rmsprop": lambda m: torch.optim.RMSprop(
        two(m, lr=0.005), lr=0.02, centered=True, momentum=0.5
    ),
    "head_only": lambda m: torch.optim.SGD(m[2].parameters(), lr=0.1),
    "named": lambda m: torch.optim.SGD(m.named_parameters(), lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_of_torch_is_translated(name):
    model = net(nn.Tanh())
    plain = copy.deepcopy(model)
    optimizer = OPTIMIZERS[name](plain)
    learner = learner_of(model, Scaled().double(), inner=OPTIMIZERS[name](model))
    for step in range(10):
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
        assert_same_state(model, plain, step)
    assert (model[2].weight - net(nn.Tanh())[2].weight).norm() > 1e-3


class Own(torch.optim.SGD):
    pass


def stepped(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain_step(model, optimizer, pair(0))
    return optimizer


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda m: torch.optim.Adagrad(m.parameters()), "Adagrad, which has no equal here"),
        (lambda m: Own(m.parameters()), "Own, which has no equal here"),
        (lambda m: torch.optim.Adam(m.parameters(), amsgrad=True), "amsgrad=True, which has no"),
        (lambda m: torch.optim.SGD(m.parameters(), maximize=True), "maximize=True, which has no"),
        (stepped, "has taken steps already"),
        (lambda m: torch.optim.SGD(nn.Linear(2, 2).parameters()), "not one of the model"),
        (
            lambda m: schedulers.ReduceLROnPlateau(torch.optim.SGD(m.parameters())),
            "whose rate depends on a metric",
        ),
        (
            lambda m: schedulers.OneCycleLR(
                torch.optim.SGD(m.parameters(), momentum=0.9), max_lr=0.1, total_steps=10
            ),
            "OneCycleLR that changes the momentum too",
        ),
    ],
)
def test_what_has_no_equal_is_named_in_one_line(made, message):
    assert message in refusal_of(made)


SCHEDULERS = {
    "cosine": lambda o: schedulers.CosineAnnealingLR(o, 7, eta_min=0.01),
    "lambda": lambda o: schedulers.LambdaLR(o, [lambda k: min(1, k / 4), lambda k: 0.9**k]),
    "one_cycle": lambda o: schedulers.OneCycleLR(
        o, max_lr=0.3, total_steps=12, cycle_momentum=False
    ),
    "restarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "in_turn": lambda o: schedulers.SequentialLR(
        o,
        [schedulers.LinearLR(o, 0.1, total_iters=3), schedulers.ExponentialLR(o, 0.8)],
        milestones=[3],
    ),
    "chained": lambda o: schedulers.ChainedScheduler(
        [schedulers.ConstantLR(o, 0.5, total_iters=4), schedulers.StepLR(o, 2)]
    ),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("unroll", [1, 2])
def test_a_scheduler_of_torch_is_followed(name, unroll):
    model = net(nn.Tanh())
    plain = copy.deepcopy(model)
    make = SCHEDULERS[name]
    optimizer = torch.optim.SGD(two(plain, lr=0.1), lr=0.3, momentum=0.5)
    scheduler = make(optimizer)
    given = make(torch.optim.SGD(two(model, lr=0.1), lr=0.3, momentum=0.5))
    before = given.get_last_lr()
    learner = learner_of(model, Scaled().double(), inner=given)
    for step in range(0, 10, unroll):
        pairs = [pair(step + k) for k in range(unroll)]
        learner.step(pairs)
        for one in pairs:
            plain_step(plain, optimizer, one)
            scheduler.step()
        assert_same_state(model, plain, step)
    assert given.get_last_lr() == before


@pytest.mark.parametrize("engine", ["mixed", "torchopt"])
def test_the_meta_gradient_knows_the_rate_of_each_step(engine):
    model, loss = net(nn.Tanh()), seeded(MLPLoss).double()
    pairs, meta = [pair(0), pair(1), pair(2)], pair(3)
    rates = [0.3 * 0.5**k for k in range(3)]
    options = {name: {"lr": rates} for name, _ in model.named_parameters()}
    right = slope_of(model, loss, pairs, meta, "sgd", options)
    given = schedulers.ExponentialLR(torch.optim.SGD(model.parameters(), lr=0.3), 0.5)
    found = metaloss.meta_gradient(
        model, loss, pairs, meta, inner=given, task_loss=F.cross_entropy, engine=engine
    )
    assert any(value.norm() > 1e-9 for value in right.values())
    for key, value in right.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("compile", ["off", "trace"])
def test_rates_may_change_between_steps(compile):
    model = net(nn.Tanh())
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3, momentum=0.5)
    learner = learner_of(model, Scaled().double(), inner=SGD(lr=0.3, momentum=0.5), compile=compile)
    rates = {2: 0.1, 4: 0.0, 5: lambda step: 1 / (1 + step), 8: [0.2]}
    for step in range(10):
        if step in rates:
            learner.set_lr(rates[step])
        rate = {0: 0.3, 1: 0.3, 2: 0.1, 3: 0.1, 4: 0.0, 8: 0.2, 9: 0.2}.get(step, 1 / (1 + step))
        optimizer.param_groups[0]["lr"] = rate
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
        assert_same_state(model, plain, step)
    if compile == "trace":
        (step,) = learner._forms._known.values()
        assert len(step._whole.programs) == 1


@pytest.mark.parametrize("lr", [-1.0, float("nan"), [0.1, 0.2], lambda step: -0.1])
def test_bad_rates_are_refused(lr):
    with pytest.raises(MetalossError, match="expected a number ≥ 0"):
        learner_of(net()).set_lr(lr)


def test_a_function_beside_a_schedule_is_refused():
    learner = learner_of(net(), inner=SGD(lr=0.1, schedule=RateSchedule.cosine))
    with pytest.raises(MetalossError, match=r"the optimizer has schedule=cosine: expected one"):
        learner.set_lr(lambda step: 0.1)


def test_the_moving_average_is_that_of_torch():
    model = net(nn.BatchNorm1d(8))
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    mean = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(0.8))
    learner = learner_of(model, Scaled().double(), ema=0.8)
    for step in range(0, 8, 2):
        learner.step([pair(step), pair(step + 1)])
        for k in (step, step + 1):
            plain_step(plain, optimizer, pair(k))
            mean.update_parameters(plain)
    found = learner.ema_model()
    for (name, value), aim in zip(found.named_parameters(), mean.module.parameters(), strict=True):
        torch.testing.assert_close(value, aim, rtol=1e-10, atol=1e-12, msg=name)
    assert (found[0].weight - model[0].weight).norm() > 1e-3
    assert torch.equal(found[1].running_mean, model[1].running_mean)
    with torch.no_grad():
        aim = F.cross_entropy(found.eval()(pair(50)[0]), pair(50)[1])
    assert learner.evaluate([pair(50)], ema=True) == pytest.approx(aim.item())


def test_a_step_that_is_not_taken_leaves_the_average():
    learner = learner_of(net(), ema=0.5)
    learner.step(pair(0))
    before = learner.ema_model().state_dict()
    inputs, targets = pair(1)
    assert not learner.step((inputs * float("nan"), targets)).taken
    after = learner.ema_model().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_rates_and_average_are_saved():
    def make():
        inner = metaloss.ParamGroups(SGD(lr=0.3, momentum=0.9), two(model := net(nn.Tanh())))
        return learner_of(model, inner=inner, ema=0.9)

    whole, first = make(), make()
    for learner in (whole, first):
        learner.set_lr([0.1, 0.2])
        learner.step(pair(0), pair(10))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make()
    second.load_state_dict(torch.load(file, weights_only=True))
    for learner in (whole, second):
        learner.step(pair(1), pair(11))
    for one, other in ((whole.model, second.model), (whole.ema_model(), second.ema_model())):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("ema", [-0.1, 1.0])
def test_a_bad_decay_is_refused(ema):
    with pytest.raises(MetalossError, match=r"expected a number in \[0, 1\), such as 0.999"):
        learner_of(net(), ema=ema)


def test_without_an_average_there_is_none():
    with pytest.raises(MetalossError, match=r"make it with ema=0.999"):
        learner_of(net()).ema_model()
