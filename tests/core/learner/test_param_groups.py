"""Parameter groups, clipping and optimizers of ``torch.optim`` in a user's own loop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss import SGD, Adam, AdamW, MLPLoss, ParamGroups, RMSprop
from metaloss.losses import Scaled

from .explicit_unroll import slope_of
from .learner_setups import learner_of, net, pair, refusal_of, seeded

# Options of the first layer, then of the second; the norm between them is in no group.
FIRST, SECOND = {"lr": 0.05, "weight_decay": 0.0}, {"weight_decay": 0.1}
KINDS = {
    "sgd": (SGD(lr=0.2), torch.optim.SGD, "sgd", {"lr": 0.2}),
    "momentum": (
        SGD(lr=0.2, momentum=0.8),
        torch.optim.SGD,
        "sgd",
        {"lr": 0.2, "momentum": 0.8},
    ),
    "nesterov": (
        SGD(lr=0.2, momentum=0.8, nesterov=True),
        torch.optim.SGD,
        "sgd",
        {"lr": 0.2, "momentum": 0.8, "nesterov": True},
    ),
    "adam": (Adam(lr=0.02, eps=1e-3), torch.optim.Adam, "adam", {"lr": 0.02, "eps": 1e-3}),
    "adamw": (AdamW(lr=0.02, eps=1e-3), torch.optim.AdamW, "adam", {"lr": 0.02, "eps": 1e-3}),
    "rmsprop": (
        RMSprop(lr=0.02, eps=1e-2),
        torch.optim.RMSprop,
        "rmsprop",
        {"lr": 0.02, "eps": 1e-2},
    ),
}


def model_of():
    return net(nn.LayerNorm(8), nn.Tanh()).double()


def groups(model):
    return [
        {"params": model[0].parameters(), **FIRST},
        {"params": list(model[3].parameters()), **SECOND},
    ]


def options_of(name):
    options = KINDS[name][3]
    if name == "adamw":
        options = {**options, "decoupled": True}
    return {
        "0.weight": {**options, **FIRST},
        "0.bias": {**options, **FIRST},
        "3.weight": {**options, **SECOND},
        "3.bias": {**options, **SECOND},
    }


def plain_step(model, optimizer, batch, clip=None):
    optimizer.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()


def assert_same_state(model, plain, step=None):
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(
            model.state_dict()[key], value, rtol=1e-10, atol=1e-12, msg=f"{step}: {key}"
        )


@pytest.mark.parametrize("name", KINDS)
def test_groups_equal_torch_step_by_step(name):
    inner, theirs, _, options = KINDS[name]
    model = model_of()
    plain = copy.deepcopy(model)
    optimizer = theirs(groups(plain), **options)
    learner = learner_of(model, Scaled().double(), inner=ParamGroups(inner, groups(model)))
    before = model[1].weight.clone()
    for step in range(12):
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
        assert_same_state(model, plain, step)
    assert torch.equal(model[1].weight, before)
    assert (model[0].weight - model_of()[0].weight).norm() > 1e-2


@pytest.mark.parametrize("engine", ["mixed", "torchopt", "higher"])
@pytest.mark.parametrize("clip", [None, 0.001])
@pytest.mark.parametrize("name", KINDS)
def test_the_meta_gradient_goes_through_groups_and_clipping(name, clip, engine):
    inner, _, kind, _ = KINDS[name]
    model, loss = model_of(), seeded(MLPLoss).double()
    pairs, meta = [pair(0), pair(1), pair(2)], pair(3)
    right = slope_of(model, loss, pairs, meta, kind, options_of(name), clip)
    if clip is not None:
        inner = type(inner)(**{**vars(inner), "clip": clip})
        free = slope_of(model, loss, pairs, meta, kind, options_of(name))
        assert any((right[n] - free[n]).norm() > 1e-3 * free[n].norm() for n in free)
    found = metaloss.meta_gradient(
        model,
        loss,
        pairs,
        meta,
        inner=ParamGroups(inner, groups(model)),
        task_loss=F.cross_entropy,
        engine=engine,
    )
    assert any(value.norm() > 1e-9 for value in right.values())
    for key, value in right.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("compile", ["off", "trace"])
def test_clipping_is_that_of_torch(compile):
    model = model_of()
    plain = copy.deepcopy(model)
    optimizer = torch.optim.SGD(plain.parameters(), 0.5, momentum=0.9)
    inner = SGD(lr=0.5, momentum=0.9, clip=0.1)
    learner = learner_of(model, Scaled().double(), inner=inner, compile=compile)
    for step in range(8):
        learner.step(pair(step), pair(100 + step))
        with torch.no_grad():
            learner.loss.scale.fill_(1.0)
        plain_step(plain, optimizer, pair(step), clip=0.1)
        assert_same_state(model, plain, step)


def test_biases_and_norms_need_not_decay():
    model = model_of()
    plain = copy.deepcopy(model)
    sides = [p for p in plain.parameters() if p.dim() < 2]
    rest = [p for p in plain.parameters() if p.dim() >= 2]
    optimizer = torch.optim.AdamW([{"params": rest}, {"params": sides, "weight_decay": 0.0}], 0.1)
    for group in optimizer.param_groups[:1]:
        group["weight_decay"] = 0.5
    inner = AdamW(lr=0.1, weight_decay=0.5, bias_decay=False)
    learner = learner_of(model, Scaled().double(), inner=inner)
    for step in range(6):
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
        assert_same_state(model, plain, step)


def test_freezing_a_group_and_its_return_is_that_of_torch():
    model = model_of()
    plain = copy.deepcopy(model)
    optimizer = torch.optim.Adam(groups(plain), lr=0.05)
    learner = learner_of(
        model, Scaled().double(), inner=ParamGroups(Adam(lr=0.05), groups(model)), ema=0.5
    )
    frozen = {2: (0, False), 5: (0, True), 7: (3, False), 8: (3, True)}
    for step in range(10):
        if step in frozen:
            layer, trained = frozen[step]
            for one in (model, plain):
                one[layer].requires_grad_(trained)
        learner.step(pair(step))
        plain_step(plain, optimizer, pair(step))
        assert_same_state(model, plain, step)
    assert learner.ema_model()[0].weight.shape == (8, 5)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda m: ParamGroups(SGD(), []), "got no groups"),
        (lambda m: ParamGroups("sgd", []), "got a str: expected an inner optimizer"),
        (lambda m: ParamGroups(SGD(), [m[0].weight]), "without 'params': expected a dictionary"),
        (lambda m: ParamGroups(SGD(), [{"params": ["0.weight"]}]), "has a str in 'params'"),
        (lambda m: ParamGroups(SGD(), 5), "got 5: expected a list of dictionaries"),
        (lambda m: ParamGroups(SGD(), [{"params": iter(())}]), "group 0 has no parameters"),
        (lambda m: ParamGroups(SGD(), [{"params": m[0].weight, "lr": "x"}]), "group 0: "),
        (
            lambda m: ParamGroups(Adam(), [{"params": m[0].weight, "betas": 0.9}]),
            "betas=0.9: expected two numbers",
        ),
        (
            lambda m: ParamGroups(SGD(), [{"params": m[0].weight, "lrr": 1}]),
            "unknown option of SGD in group 0 'lrr': did you mean 'lr'",
        ),
        (lambda m: ParamGroups(SGD(), [{"params": m[0].weight, "clip": 1}]), "give clip to SGD()"),
        (
            lambda m: ParamGroups(SGD(), [{"params": m.parameters()}, {"params": m[0].weight}]),
            "groups 0 and 1 have a parameter of shape",
        ),
        (
            lambda m: ParamGroups(SGD(), [{"params": nn.Linear(2, 2).parameters()}]),
            "not one of the model",
        ),
    ],
)
def test_bad_groups_are_refused_in_one_line(made, message):
    assert message in refusal_of(made)
