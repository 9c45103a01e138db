"""A module as a pure function gives what the module itself gives."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from metaloss.inner import FunctionalModel
from metaloss.inner.forward_mode import jvp
from metaloss.inner.model.write_back import write_back

from .seeded_modules import inputs, seeded


class Counting(nn.Module):
    """Buffers renewed in both ways that modules know: in place, and by assignment."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("assigned", torch.zeros(()))

    def forward(self, x):
        self.in_place += 1
        self.assigned = self.assigned + x.mean().detach()
        return self.head(x) + self.assigned


class SharedModule(nn.Module):
    """One BatchNorm under two names, with and without parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = self.again = nn.BatchNorm1d(4)
        self.bare = self.bare_again = nn.BatchNorm1d(4, affine=False)

    def forward(self, x):
        return self.bare_again(self.again(self.bare(self.norm(x)) + 1) * 2)


MODULES = {
    "linear": (lambda: nn.Linear(4, 2), (6, 4)),
    "batch_norm": (lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), (6, 4)),
    "cumulative_norm": (lambda: nn.BatchNorm1d(4, momentum=None), (6, 4)),
    "plain_norm": (lambda: nn.BatchNorm1d(4, track_running_stats=False, affine=True), (6, 4)),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        ),
        (5, 2, 8, 8),
    ),
    "counting": (Counting, (6, 4)),
    "shared_module": (SharedModule, (6, 4)),
    "attention": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        (3, 5, 4),
    ),
    "weight_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))),
        (6, 4),
    ),
    "spectral_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))),
        (6, 4),
    ),
    "gru": (lambda: nn.Sequential(nn.GRU(4, 3, batch_first=True), First()), (3, 5, 4)),
}


class First(nn.Module):
    def forward(self, outputs):
        return outputs[0]


@pytest.fixture(params=MODULES)
def module_and_rows(request):
    build, shape = MODULES[request.param]
    return seeded(build), inputs(*shape)


def values(module: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def assert_equal_trees(got, expected) -> None:
    (a, a_tree), (b, b_tree) = pytree.tree_flatten(got), pytree.tree_flatten(expected)
    assert a_tree == b_tree
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_train_mode_equals_the_module_three_times_in_a_row(module_and_rows):
    """Outputs, gradients and the buffers that a train forward leaves."""
    module, x = module_and_rows
    model = FunctionalModel(module)
    params, buffers = model.state()
    ordinary = copy.deepcopy(module)
    for _ in range(3):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        outputs, buffers = model(leaves, buffers, x, key=torch.tensor(0))
        expected = ordinary(x)
        torch.testing.assert_close(outputs, expected, rtol=1e-12, atol=1e-14)
        names = [name for name, p in ordinary.named_parameters() if p.requires_grad]
        assert names == list(leaves)
        if names:
            got = torch.autograd.grad(outputs.square().sum(), leaves.values())
            own = [dict(ordinary.named_parameters())[name] for name in names]
            true = torch.autograd.grad(expected.square().sum(), own)
            assert_equal_trees(got, true)
        assert_equal_trees(buffers, {n: b.detach() for n, b in ordinary.named_buffers()})


def test_evaluation_mode_equals_the_module(module_and_rows):
    module, x = module_and_rows
    with torch.no_grad():
        module(x)  # statistics that are not the initial ones
    model = FunctionalModel(module)
    params, buffers = model.state()
    with torch.no_grad():
        outputs, after = model(params, buffers, x, train=False)
        expected = copy.deepcopy(module).eval()(x)
    torch.testing.assert_close(outputs, expected, rtol=1e-9, atol=1e-12)
    kept = {name: value for name, value in buffers.items() if "norm" in name or "running" in name}
    assert_equal_trees({name: after[name] for name in kept}, kept)


def test_the_module_and_the_arguments_stay_as_they_are(module_and_rows):
    module, x = module_and_rows
    before, flags = values(module), [part.training for part in module.modules()]
    model = FunctionalModel(module)
    params, buffers = model.state()
    given = pytree.tree_map(torch.clone, (params, buffers))
    model(params, buffers, x, key=torch.tensor(3))
    model(params, buffers, x, train=False)
    assert_equal_trees(values(module), before)
    assert [part.training for part in module.modules()] == flags
    assert_equal_trees((params, buffers), given)
    assert_equal_trees(model.state(), given)


def test_a_call_depends_on_its_arguments_alone(module_and_rows):
    module, x = module_and_rows
    model = FunctionalModel(module)
    params, buffers = model.state()
    first = model(params, buffers, x, key=torch.tensor(3))
    model(params, first[1], x * 2, key=torch.tensor(4))
    model(params, buffers, x, train=False)
    assert_equal_trees(model(params, buffers, x, key=torch.tensor(3)), first)


def test_tied_weights_count_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(4, 4, bias=False)
            self.decode = nn.Linear(4, 4, bias=False)
            self.decode.weight = self.encode.weight

        def forward(self, x):
            return self.decode(torch.tanh(self.encode(x)))

    module, x = seeded(Tied), inputs(6, 4)
    model = FunctionalModel(module)
    params, buffers = model.state()
    assert list(params) == ["encode.weight"]
    moved = {"encode.weight": params["encode.weight"] * 1.5}
    outputs, _ = model(moved, buffers, x)
    weight = moved["encode.weight"]
    torch.testing.assert_close(outputs, torch.tanh(x @ weight.T) @ weight.T)


def test_a_buffer_of_two_modules_stays_one():
    class Counter(nn.Module):
        def __init__(self, count) -> None:
            super().__init__()
            self.register_buffer("count", count)

        def forward(self, x):
            self.count.add_(1)
            return x * self.count

    count = torch.zeros((), dtype=torch.float64)
    model = FunctionalModel(nn.Sequential(Counter(count), Counter(count)))
    params, buffers = model.state()
    assert list(buffers) == ["0.count"]
    for call in range(2):
        outputs, buffers = model(params, buffers, inputs(3, 4))
        first = 2 * call + 1
        torch.testing.assert_close(outputs, inputs(3, 4) * first * (first + 1))
    assert buffers["0.count"] == 4
    assert count == 0


def test_frozen_parameters_are_constants():
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    module[0].requires_grad_(False)
    model = FunctionalModel(module)
    params, buffers = model.state()
    assert list(params) == ["1.weight", "1.bias"]
    outputs, _ = model(params, buffers, inputs(3, 4))
    torch.testing.assert_close(outputs, module(inputs(3, 4)))


def test_a_batch_norm_set_to_evaluation_stays_there():
    module = seeded(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4)))
    module[0].eval()
    model = FunctionalModel(module)
    params, buffers = model.state()
    _, after = model(params, buffers, inputs(6, 4) + 3)
    assert torch.equal(after["0.running_mean"], buffers["0.running_mean"])
    assert int(after["0.num_batches_tracked"]) == 0
    assert not torch.equal(after["1.running_mean"], buffers["1.running_mean"])


def test_a_module_in_evaluation_mode_is_trained_in_train_mode():
    module = seeded(lambda: nn.BatchNorm1d(4)).eval()
    model = FunctionalModel(module)
    _, after = model(*model.state(), inputs(6, 4))
    assert int(after["num_batches_tracked"]) == 1
    assert not module.training


def test_values_written_back_give_the_same_outputs():
    module = seeded(lambda: nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    model = FunctionalModel(module)
    params, buffers = model.state()
    params = {name: value + 0.1 for name, value in params.items()}
    _, buffers = model(params, buffers, inputs(6, 4))
    expected, _ = model(params, buffers, inputs(6, 4), train=False)
    other = model.module_with(params, buffers).eval()
    torch.testing.assert_close(other(inputs(6, 4)), expected)
    write_back(module, params, buffers)
    torch.testing.assert_close(module.eval()(inputs(6, 4)), expected)
    state = model.state(module)
    assert_equal_trees(state, (params, buffers))


def test_attention_has_second_derivatives_and_forward_mode():
    """The fused kernels have neither."""

    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = nn.Linear(8, 8)

        def forward(self, x):
            x = self.project(x)
            return F.scaled_dot_product_attention(x, x, x)

    model = FunctionalModel(seeded(Attend))
    params, buffers = model.state()

    def total(params):
        return model(params, buffers, inputs(2, 6, 8))[0].square().sum()

    def slope(params):
        return torch.func.grad(total)(params)

    ones = {name: torch.ones_like(value) for name, value in params.items()}
    _, curved = jvp(slope, (params,), (ones,))
    step = 1e-5
    ends = [
        slope({name: value + sign * step for name, value in params.items()}) for sign in (1, -1)
    ]
    for name, value in curved.items():
        difference = (ends[0][name] - ends[1][name]) / (2 * step)
        torch.testing.assert_close(value, difference, rtol=1e-5, atol=1e-5)
