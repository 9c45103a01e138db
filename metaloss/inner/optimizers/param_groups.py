"""Parameter groups as ``torch.optim`` takes them, given by the parameters of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor, nn

from metaloss.errors import MetalossError, unknown_name
from metaloss.inner.optimizers.base import InnerOptimizer
from metaloss.inner.optimizers.groups import Groups


class ParamGroups:
    """Parameters with different options, or none: ``inner=`` of a `Learner` or `meta_gradient`.

    As in ``torch.optim``, a group without an option has that of the optimizer, and parameters that
    are in no group do not move. To leave only biases and norms without weight decay, no groups are
    needed: ``AdamW(bias_decay=False)``.

    Args:
        optimizer: The optimizer with the default options, such as ``SGD(lr=0.1)``.
        groups: Dictionaries. ``params`` holds parameters of the model, or pairs (name, parameter).
            The other entries are options of the optimizer, such as ``lr``. ``betas`` may be given
            as in torch. ``clip`` is an option of all groups together.

    Raises:
        MetalossError: If a group has no parameters or an unknown option, or if a parameter is in
            two groups.

    Example:
        >>> from metaloss import SGD
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> groups = ParamGroups(
        ...     SGD(lr=0.1, momentum=0.9),
        ...     [
        ...         {"params": model[0].parameters(), "lr": 0.01},
        ...         {"params": model[2].parameters(), "weight_decay": 0.001},
        ...     ],
        ... )
        >>> [one.lr for one in groups.on(model).optimizers]
        [0.01, 0.1]
    """

    def __init__(self, optimizer: InnerOptimizer, groups: Iterable[Mapping[str, Any]]) -> None:
        if not isinstance(optimizer, InnerOptimizer) or not is_dataclass(optimizer):
            raise MetalossError(
                f"ParamGroups() got a {type(optimizer).__name__}: expected an inner optimizer with "
                "options, such as SGD(lr=0.1)"
            )
        self._clip: float = getattr(optimizer, "clip", 0.0)
        self._params: list[list[Tensor]] = []
        self._optimizers: list[InnerOptimizer] = []
        seen: dict[int, int] = {}
        if not isinstance(groups, Iterable):
            raise MetalossError(
                f"ParamGroups() got {groups!r}: expected a list of dictionaries, as torch.optim "
                "takes it"
            )
        for number, group in enumerate(groups):
            params = _listed(group, number)
            for one in params:
                if seen.setdefault(id(one), number) != number:
                    raise MetalossError(
                        f"groups {seen[id(one)]} and {number} have a parameter of shape "
                        f"{tuple(one.shape)} in common: expected it in one of them"
                    )
            self._params.append(params)
            self._optimizers.append(_with_options(optimizer, group, number))
        if not self._params:
            raise MetalossError("ParamGroups() got no groups: expected one or more")

    def on(self, model: nn.Module) -> Groups:
        """Return the optimizer of a model with these groups.

        Raises:
            MetalossError: If a group has a parameter that is not the model's.
        """
        return grouped(model, self._params, self._optimizers, self._clip)


def grouped(
    model: nn.Module,
    params: Sequence[Sequence[Tensor]],
    optimizers: Sequence[InnerOptimizer],
    clip: float = 0.0,
) -> Groups:
    """Return the optimizer whose groups are some parameters of a model.

    Raises:
        MetalossError: If a parameter is not the model's.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    for number, group in enumerate(params):
        for one in group:
            if id(one) not in names:
                raise MetalossError(
                    f"group {number} has a parameter of shape {tuple(one.shape)} that is not one "
                    "of the model: pass parameters of the model that is trained"
                )
    chosen = tuple(tuple(names[id(one)] for one in group) for group in params)
    return Groups(names=chosen, optimizers=tuple(optimizers), clip=clip)


def _listed(group: Any, number: int) -> list[Tensor]:
    if not isinstance(group, Mapping) or "params" not in group:
        raise MetalossError(
            f"group {number} is a {type(group).__name__} without 'params': expected a dictionary, "
            "as torch.optim takes it"
        )
    given = group["params"]
    params = (
        [given] if isinstance(given, Tensor) else list(given) if isinstance(given, Iterable) else []
    )
    params = [one[1] if isinstance(one, tuple) else one for one in params]
    for one in params:
        if not isinstance(one, Tensor):
            raise MetalossError(
                f"group {number} has a {type(one).__name__} in 'params': expected parameters, such "
                "as model.head.parameters()"
            )
    if not params:
        raise MetalossError(
            f"group {number} has no parameters: an iterator such as model.parameters() is empty "
            "after its first use; expected list(model.parameters())"
        )
    return params


def _with_options(optimizer: Any, group: Mapping[str, Any], number: int) -> InnerOptimizer:
    """Return the optimizer with the options of a group, and without ``clip``."""
    options = {name: value for name, value in group.items() if name != "params"}
    kind, known = type(optimizer).__name__, {one.name for one in fields(optimizer)}
    if "clip" in options:
        raise MetalossError(
            f"group {number} has clip={options['clip']}: the norm is that of all groups, so give "
            f"clip to {kind}()"
        )
    if "beta1" in known and "betas" in options:
        betas = options.pop("betas")
        if not isinstance(betas, Sequence) or len(betas) != 2:
            raise MetalossError(f"group {number} has betas={betas!r}: expected two numbers")
        options["beta1"], options["beta2"] = betas
    for name in options:
        if name not in known:
            raise unknown_name(f"option of {kind} in group {number}", name, known)
    if "clip" in known:
        options["clip"] = 0.0
    try:
        found: InnerOptimizer = replace(optimizer, **options)
    except MetalossError as error:
        raise MetalossError(f"group {number}: {error}") from error
    return found
