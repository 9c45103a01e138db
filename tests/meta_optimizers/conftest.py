"""Models, inner optimizers and inner problems that every engine must agree on, in float64."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.contracts import InnerOptimizer
from metaloss.inner import SGD, Adam, AdamW, FunctionalModel, InnerProblem, RMSprop
from metaloss.losses import MLPLoss
from metaloss.meta_optimizers.higher import Higher
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.torchopt import TorchOpt
from metaloss.types import Batch, InnerState, Tensors, Window

EXACT = {"mixed": Mixed(), "torchopt": TorchOpt(), "higher": Higher()}
ROWS, FEATURES, CLASSES, ZERO_FEATURE = 8, 6, 3, 2


class Tied(nn.Module):
    """One weight under two names, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES)
        self.second = nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Shared(nn.Module):
    """One module with statistics and one with randomness, each used twice under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = self.norm_again = nn.BatchNorm1d(FEATURES)
        self.drop = self.drop_again = nn.Dropout(0.25)
        self.body = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.norm(self.body(x))))
        return self.head(self.drop_again(self.norm_again(x)))


class Partial(nn.Module):
    """A frozen layer, a frozen BatchNorm in evaluation mode, and a parameter that is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(FEATURES, 5).requires_grad_(False)
        self.norm = nn.BatchNorm1d(5).requires_grad_(False).eval()
        self.unused = nn.Parameter(torch.ones(2))
        self.head = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.frozen(x)))


class Attention(nn.Module):
    """Self-attention over the features, as a module and as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x.unsqueeze(-1))
        tokens, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean(1))


class Foreign(nn.Module):
    """Randomness that is no ``nn.Dropout``."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(FEATURES, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(torch.tanh(self.body(x)), 0.3, self.training))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(FEATURES, CLASSES),
    "mlp": lambda: nn.Sequential(nn.Linear(FEATURES, 5), nn.Tanh(), nn.Linear(5, CLASSES)),
    "norm_dropout": lambda: nn.Sequential(
        nn.Linear(FEATURES, 6),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.Dropout(0.3),
        nn.Linear(6, CLASSES),
    ),
    "norm": lambda: nn.Sequential(
        nn.Linear(FEATURES, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, CLASSES)
    ),
    "cnn": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(CLASSES),
    ),
    "tied": Tied,
    "shared": Shared,
    "partial": Partial,
    "attention": Attention,
    "foreign": Foreign,
}

# With each, the torch.optim class and options that mean the same.
OPTIMIZERS: dict[str, tuple[InnerOptimizer, type[torch.optim.Optimizer], dict]] = {
    "sgd": (SGD(lr=0.2, momentum=0.0), torch.optim.SGD, {"lr": 0.2}),
    "momentum": (SGD(lr=0.1, momentum=0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (
        SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "dampening": (
        SGD(lr=0.1, momentum=0.9, dampening=0.4),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.4},
    ),
    # The first step of Adam is ±lr whatever the gradient's size, were it not for ε.
    "adam": (Adam(lr=0.01, eps=1e-3), torch.optim.Adam, {"lr": 0.01, "eps": 1e-3}),
    "adam_decay": (
        Adam(lr=0.01, weight_decay=0.1),
        torch.optim.Adam,
        {"lr": 0.01, "weight_decay": 0.1},
    ),
    "adamw": (
        AdamW(lr=0.01, weight_decay=0.1),
        torch.optim.AdamW,
        {"lr": 0.01, "weight_decay": 0.1},
    ),
    "rmsprop": (RMSprop(lr=0.01), torch.optim.RMSprop, {"lr": 0.01}),
    "rmsprop_all": (
        RMSprop(lr=0.01, centered=True, momentum=0.5, weight_decay=0.1),
        torch.optim.RMSprop,
        {"lr": 0.01, "centered": True, "momentum": 0.5, "weight_decay": 0.1},
    ),
}


class Case(NamedTuple):
    """One question to an engine, with the module that it is about."""

    problem: InnerProblem
    phi: Tensors
    state: InnerState
    window: Window
    module: nn.Module

    def answer(self, engine):
        return engine.meta_gradient(self.problem, self.phi, self.state, self.window)


def build_case(
    model: str | nn.Module,
    optimizer: str | InnerOptimizer,
    unroll: int,
    *,
    dtype: torch.dtype = torch.float64,
) -> Case:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = MODELS[model]() if isinstance(model, str) else model
        draw = torch.Generator().manual_seed(2)
        inputs = torch.randn(unroll + 1, ROWS, FEATURES, generator=draw, dtype=torch.float64).to(
            dtype
        )
        inputs[:, :, ZERO_FEATURE] = 0
        targets = torch.randint(CLASSES, (unroll + 1, ROWS), generator=draw)
        module(inputs[0].float())  # lazy layers take their shape
        module, loss = module.to(dtype), MLPLoss().to(dtype)
    # A loss that teaches something has slopes of the task loss's size.
    phi = {name: 3 * value.detach() for name, value in loss.named_parameters()}
    if isinstance(optimizer, str):
        optimizer = OPTIMIZERS[optimizer][0]
    problem = InnerProblem(
        model=FunctionalModel(module), loss=loss, task_loss=F.cross_entropy, optimizer=optimizer
    )
    params, buffers = problem.model.state()
    *batches, meta_batch = (Batch(x, t) for x, t in zip(inputs, targets, strict=True))
    *keys, meta_key = torch.arange(unroll + 1) * 2**33 + 17
    window = Window(tuple(batches), tuple(keys), meta_batch, meta_key)
    return Case(problem, phi, InnerState(params, buffers, optimizer.init(params)), window, module)


def relative_distance(got: Tensors, expected: Tensors) -> float:
    """Return ‖got − expected‖ / ‖expected‖ over all entries; the expected one is not zero."""
    assert list(got) == list(expected)
    expected = {name: value.detach() for name, value in expected.items()}
    norm = torch.stack([value.norm() for value in expected.values()]).norm()
    assert norm > 1e-7, "the reference is zero: the comparison would show nothing"
    apart = torch.stack([(got[name] - value).norm() for name, value in expected.items()]).norm()
    return float(apart / norm)


@pytest.fixture
def case():
    return build_case


@pytest.fixture
def distance():
    return relative_distance


@pytest.fixture(params=EXACT)
def exact(request):
    return EXACT[request.param]


@pytest.fixture(params=OPTIMIZERS)
def optimizer_name(request):
    return request.param


@pytest.fixture(params=MODELS)
def model_name(request):
    return request.param


@pytest.fixture
def torch_optimizer():
    return lambda name, params: OPTIMIZERS[name][1](params, **OPTIMIZERS[name][2])
