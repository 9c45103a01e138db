"""Models that return several things: which of them are the raw outputs."""

import copy
import logging
from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import metaloss
from metaloss import SGD, MLPLoss
from metaloss.errors import MetalossError
from metaloss.losses import CrossEntropy

from .learner_setups import learner_of, net, pair, seeded

Named = namedtuple("Named", ["logits", "aux"])


class Returns(nn.Module):
    """Two heads, returned in some form in train mode; the first alone in evaluation mode."""

    def __init__(self, form):
        super().__init__()
        self.body, self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)
        self.form = form

    def forward(self, x):
        x = torch.tanh(self.body(x))
        one, two = self.first(x), self.second(x)
        return self.form(one, two) if self.training else one


def as_dict(one, two):
    return {"other": two, "mine": one}


def as_list(one, two):
    return [two, one]


def as_ordered(one, two):
    return OrderedDict(aux=two, out=one)


FORMS = {
    "a key": (as_dict, "mine"),
    "a place in a dictionary": (as_dict, 1),
    "a place": (as_list, 1),
    "a place from the end": (as_list, -1),
    "an attribute": (Named, "logits"),
    "a function": (as_list, lambda found: found if torch.is_tensor(found) else found[1]),
    "found as logits": (Named, None),
    "found as out": (as_ordered, None),
}


def model_of(form):
    return seeded(lambda: Returns(form)).double()


@pytest.mark.parametrize("name", FORMS)
def test_an_output_is_chosen_or_found(name):
    form, output = FORMS[name]
    model = model_of(form)
    learner = learner_of(model, output=output)
    plain = learner_of(model_of(lambda one, two: one))
    for step in range(2):
        seen, expected = (one.step(pair(step), pair(9)) for one in (learner, plain))
        torch.testing.assert_close(seen.meta_task, expected.meta_task)
    for key, value in plain.model.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert not torch.equal(model.first.weight, model_of(form).first.weight)
    assert learner.evaluate([pair(1)]) == plain.evaluate([pair(1)])


def test_the_first_tensor_is_a_guess_that_is_said_once(caplog):
    with caplog.at_level(logging.WARNING):
        learner = learner_of(model_of(as_list))
        for step in range(3):
            learner.step(pair(step))
    lines = [record.message for record in caplog.records if "raw outputs" in record.message]
    assert lines == ["the model returns a list: its raw outputs are the first tensor (output=0)"]


def test_auxiliary_heads_have_their_share_of_the_loss():
    model = model_of(Named)
    plain = copy.deepcopy(model)
    shares = {"logits": 1.0, "aux": 0.4}
    learner = learner_of(model, CrossEntropy(), inner=SGD(lr=0.3), output=shares)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.3)
    for step in range(4):
        inputs, targets = pair(step)
        seen = learner.step((inputs, targets))
        one, two = plain(inputs)
        optimizer.zero_grad()
        loss = F.cross_entropy(one, targets) + 0.4 * F.cross_entropy(two, targets)
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(seen.inner[0], loss.detach(), rtol=1e-10, atol=0)
        task = F.cross_entropy(one, targets).detach()
        torch.testing.assert_close(seen.train_task[0], task, rtol=1e-10, atol=0)
        for key, value in plain.state_dict().items():
            torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        aim = F.cross_entropy(plain.eval()(pair(8)[0]), pair(8)[1])
    assert learner.evaluate([pair(8)]) == pytest.approx(aim.item())


@pytest.mark.parametrize("engine", ["mixed", "torchopt", "higher"])
def test_the_meta_gradient_goes_through_all_heads(engine):
    model, loss = model_of(Named), seeded(MLPLoss).double()
    phi = {n: p.detach().clone().requires_grad_() for n, p in loss.named_parameters()}
    params = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    for number in range(2):
        inputs, targets = pair(number)
        one, two = torch.func.functional_call(model, params, (inputs,))
        value = torch.func.functional_call(loss, phi, (one, targets))
        value = value + 0.4 * torch.func.functional_call(loss, phi, (two, targets))
        grads = torch.autograd.grad(value, list(params.values()), create_graph=True)
        params = {n: p - 0.3 * g for (n, p), g in zip(params.items(), grads, strict=True)}
    inputs, targets = pair(2)
    one, _ = torch.func.functional_call(model, params, (inputs,))
    right = torch.autograd.grad(F.cross_entropy(one, targets), list(phi.values()))
    found = metaloss.meta_gradient(
        model,
        loss,
        [pair(0), pair(1)],
        pair(2),
        inner=SGD(lr=0.3),
        task_loss=F.cross_entropy,
        engine=engine,
        output={"logits": 1.0, "aux": 0.4},
    )
    assert any(value.norm() > 1e-9 for value in right)
    for value, aim in zip(found.values(), right, strict=True):
        torch.testing.assert_close(value, aim, rtol=1e-9, atol=1e-13)


def test_the_heads_of_googlenet_learn():
    torchvision = pytest.importorskip("torchvision")
    make = torchvision.models.GoogLeNet
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make(3, aux_logits=True, init_weights=False, dropout=0.0, dropout_aux=0.0)
        batch = torch.randn(2, 3, 64, 64), torch.tensor([0, 2])
    output = {"logits": 1.0, "aux_logits2": 0.3, "aux_logits1": 0.3}
    before = model.aux1.fc2.weight.clone()
    learner = learner_of(model, MLPLoss(), inner=SGD(lr=0.01), output=output)
    assert learner.step(batch, batch).taken
    assert not torch.equal(model.aux1.fc2.weight, before)


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        (as_dict, "min", "unknown output 'min': did you mean 'mine'?"),
        (as_list, 5, "output=5: the model returns 2 values"),
        (as_dict, lambda found: 3, "is a int: expected a tensor"),
        (as_dict, 0.5, "output=0.5: expected a key, a place, a function"),
        (as_dict, {}, "expected one output or more"),
        (as_dict, {"mine": -1}, "the share of 'mine' is -1: expected a number ≥ 0"),
        (lambda one, two: one, {"mine": 1, "other": 1}, "is it in evaluation mode?"),
        (lambda one, two: [one, two[:, :2]], {0: 1, 1: 1}, "expected the same for all"),
        (lambda one, two: "nothing", None, "without a tensor"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(form, output, message):
    with pytest.raises(MetalossError) as caught:
        learner_of(model_of(form), output=output).step(pair(0))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_returns_a_tensor_needs_no_choice():
    one, other = learner_of(net()), learner_of(net(), output="logits")
    for learner in (one, other):
        learner.step(pair(0), pair(1))
    assert torch.equal(one.model[0].weight, other.model[0].weight)
    assert not torch.equal(one.model[0].weight, net()[0].weight)
