"""Classifiers of torchvision by name, with weights from a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import Any, Self

from torch import Tensor, nn

from metaloss.errors import MetalossError, unknown_name
from metaloss.models.options import check_image
from metaloss.models.pretrained.state_dict import read_weights
from metaloss.options import Options

# Their further outputs during training, which have losses of their own, are left out.
_WITH_AUXILIARY = ("googlenet", "inception_v3")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


class TrainOnly(Enum):
    """The part that is trained: all of the network, or its last layer."""

    all = "all"
    head = "head"


@dataclass(frozen=True, kw_only=True)
class TorchvisionConfig(Options, group="model"):
    """Options of the ``torchvision`` model."""

    network: str = field(
        default="resnet18", metadata={"help": "a classifier of torchvision, such as resnet18"}
    )
    weights: str = field(
        default="",
        metadata={"help": "a file with weights, .pt, .pth or .safetensors; empty: random ones"},
    )
    train_only: TrainOnly = field(
        default=TrainOnly.all,
        metadata={"help": "what is trained: all, or head: the last layer, on frozen weights"},
    )

    def __post_init__(self) -> None:
        if self.train_only is TrainOnly.head and not self.weights:
            raise MetalossError("model.train_only=head: expected model.weights=FILE too")

    def without_files(self) -> Self:
        """Return the options for a model whose weights are loaded afterwards."""
        return replace(self, weights="", train_only=TrainOnly.all)


class Torchvision(nn.Module):
    """A classifier of torchvision whose last layer has as many outputs as the task needs.

    Grey images are repeated to three channels. Weights that fit are loaded; those of a last layer
    with another number of outputs are left out, with a warning. torchvision's published weights
    expect channels with mean 0 and deviation 1, which is how tasks scale them.

    With ``train_only=head`` only the last layer is trained. All other weights are constants without
    a gradient, and their modules are in evaluation mode also during training: BatchNorm uses and
    keeps its stored moments, and nothing before the last layer is dropped out.

    The auxiliary outputs of ``googlenet`` and ``inception_v3`` are left out.

    Args:
        input_shape: (1, H, W) or (3, H, W).
        outputs: C, the number of outputs.

    Raises:
        MetalossError: If the name is unknown, the weights cannot be read or do not fit, or the
            images have another form.

    Example:
        >>> import torch
        >>> config = TorchvisionConfig(network="squeezenet1_1")
        >>> model = Torchvision(config, input_shape=(1, 32, 32), outputs=7)
        >>> model(torch.zeros(4, 1, 32, 32)).shape
        torch.Size([4, 7])
    """

    Config = TorchvisionConfig

    def __init__(
        self, config: TorchvisionConfig, *, input_shape: tuple[int, ...], outputs: int
    ) -> None:
        super().__init__()
        channels, height, width = check_image("torchvision", input_shape, outputs)
        if channels not in (1, 3):
            raise MetalossError(f"model=torchvision: {channels} channels; expected 1 or 3")
        self.network = _network(config.network, (height, width), outputs)
        self.head_name = _head_name(self.network, outputs)
        self._only_head = config.train_only is TrainOnly.head
        if config.weights:
            self._load(config, read_weights(config.weights))
        if self._only_head:
            self.network.requires_grad_(False)
            self.head.requires_grad_()
        self.train()

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.network.get_submodule(self.head_name)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return raw outputs (B, C) for ``inputs`` (B, 1 or 3, H, W)."""
        return self.network(inputs.expand(-1, 3, -1, -1))

    def train(self, mode: bool = True) -> Self:
        """Set the mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if self._only_head:
            self.network.eval()
            self.head.train(mode)
        return self

    def _load(self, config: TorchvisionConfig, weights: Mapping[str, Tensor]) -> None:
        own = self.network.state_dict()
        given = {n: v for n, v in weights.items() if n in own or not n.startswith(_AUXILIARY)}
        head = {name for name in own if name.startswith(f"{self.head_name}.")}
        other = {n for n, v in given.items() if n in own and v.shape != own[n].shape}
        where = f"model.weights={config.weights}"
        unfit = sorted((other - head) | (set(given) - set(own)))
        lacking = sorted(set(own) - set(given) - head)
        # Files from before torch 0.4 do not count batches.
        lacking = [name for name in lacking if not name.endswith("num_batches_tracked")]
        if unfit or lacking:
            what = f"{unfit[0]} does not fit" if unfit else f"{lacking[0]} is missing"
            raise MetalossError(
                f"{where}: {what} ({len(unfit)} names do not fit and {len(lacking)} are missing); "
                f"expected the weights of model.network={config.network}"
            )
        left_out = sorted((other & head) | (head - set(given)))
        if left_out:
            reason = "the last layer is new, because its weights do not fit"
            _warn_once(f"{where}: {reason}: {', '.join(left_out)}")
        kept = {name: value for name, value in given.items() if name not in other}
        self.network.load_state_dict(kept, strict=False)


# A run makes its model several times.
@cache
def _warn_once(message: str) -> None:
    # With a source line, Python would print that line of code after the warning.
    warnings.warn_explicit(message, UserWarning, "metaloss", 0)


def _network(name: str, size: tuple[int, int], outputs: int) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise unknown_name("model.network", name, known)
    options: dict[str, Any] = {"num_classes": outputs}
    if name in _WITH_AUXILIARY:
        options |= {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        options["image_size"] = size[0]
    try:
        return torchvision.models.get_model(name, weights=None, **options)
    except (ValueError, AssertionError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0] or "images of this size do not fit"
        raise MetalossError(f"model.network={name}: {reason}") from error


def _head_name(network: nn.Module, outputs: int) -> str:
    """Return the name of the last layer."""
    found = ""
    for name, part in network.named_modules():
        if outputs in (getattr(part, "out_features", 0), getattr(part, "out_channels", 0)):
            found = name
    assert found, "every classifier of torchvision ends with a layer of num_classes outputs"
    return found
