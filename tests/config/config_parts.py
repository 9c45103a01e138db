"""Small parts with every kind of option."""

from dataclasses import dataclass, field
from enum import Enum

from metaloss.contracts import TrainOn
from metaloss.errors import MetalossError


class Activation(Enum):
    relu = "relu"
    smooth_leaky_relu = "smooth_leaky_relu"


class Output(Enum):
    linear = "linear"
    softplus = "softplus"


@dataclass(frozen=True, kw_only=True)
class Digits:
    label_noise: float = 0.0
    label_smoothing: float = 0.0
    subset: int | None = None


@dataclass(frozen=True, kw_only=True)
class Net:
    hidden: list[int] = field(default_factory=lambda: [100, 100])


@dataclass(frozen=True, kw_only=True)
class Bounds:
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, kw_only=True)
class MLP:
    hidden: list[int] = field(default_factory=lambda: [40, 40])
    activation: Activation = Activation.smooth_leaky_relu
    output: Output = Output.linear
    bias: bool = True
    class_offsets: int = -1
    inputs: list[str] = field(default_factory=lambda: ["target", "prediction"])
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, kw_only=True)
class MSE:
    pass


@dataclass(frozen=True, kw_only=True)
class Powered:
    """Has an option without a default."""

    power: float


@dataclass(frozen=True, kw_only=True)
class Online:
    unroll: int = 1
    judge_rows: float = 1.0
    train_on: TrainOn = TrainOn["train"]
    offline_steps: int = 0
    offline_unroll: int = 10


@dataclass(frozen=True, kw_only=True)
class Offline:
    unroll: int = 10
    offline_steps: int = 2500


@dataclass(frozen=True, kw_only=True)
class Static:
    early_stopping: int = 0


@dataclass(frozen=True, kw_only=True)
class Start:
    pass


@dataclass(frozen=True, kw_only=True)
class Mixed:
    lr: float = 3e-3
    offline_lr: float = 1e-3
    rows: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SGD:
    lr: float = 0.01
    momentum: float = 0.9

    def __post_init__(self):
        if not self.lr > 0:
            raise MetalossError(f"lr={self.lr}: expected a positive number")


@dataclass(frozen=True, kw_only=True)
class Adam:
    lr: float = 0.001


@dataclass(frozen=True, kw_only=True)
class Console:
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class WandB:
    project: str | None = None
    tags: list[str] = field(default_factory=list)


PARTS = {
    ("task", "digits"): Digits,
    ("model", "mlp"): Net,
    ("loss", "mlp"): MLP,
    ("loss", "mse"): MSE,
    ("loss", "powered"): Powered,
    ("schedule", "online"): Online,
    ("schedule", "offline"): Offline,
    ("schedule", "static"): Static,
    ("start", "imitate"): Start,
    ("start", "random"): Start,
    ("meta_optimizer", "mixed"): Mixed,
    ("inner", "sgd"): SGD,
    ("inner", "adam"): Adam,
    ("tracker", "console"): Console,
    ("tracker", "wandb"): WandB,
}
