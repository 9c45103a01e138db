"""Imitate: φ is fitted to the task loss, without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from metaloss.contracts import Report, Start
from metaloss.errors import check_range
from metaloss.inner.keys import generator
from metaloss.inner.model.write_back import write_back
from metaloss.inner.weighted import parts_of, sees, value_of, with_row
from metaloss.losses.base import LearnedLoss, apply_link, phi_of
from metaloss.losses.targets import random_classes
from metaloss.starts.keep import moving, refuse_loaded
from metaloss.types import Batch, Link, Tensors

_REPORT_EVERY = 250
# To trace costs as much as it saves in some sixty steps.
_TRACED_FROM = 50

_Slopes = Callable[[Tensors, Batch], tuple[Tensor, Tensors]]


@dataclass(frozen=True, kw_only=True)
class Imitate(Start):
    """Fit ∂L_φ/∂z to the gradient of the task loss, at random raw outputs z and random targets.

    A network is trained along ∂L/∂z only. So a loss with the same ∂L/∂z trains like the task loss
    from the first step, even if its values differ. No rows of the task are used.

    Raises:
        MetalossError: If an option is out of range.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> from metaloss.losses.scaled import Scaled, ScaledConfig
        >>> loss = Scaled(ScaledConfig(scale=1.5))
        >>> phi = Imitate(steps=500).begin(loss, cross_entropy, outputs=5, seed=0)
        >>> round(phi["scale"].item(), 2)
        1.0
    """

    steps: int = field(default=2000, metadata={"help": "steps of Adam, > 0"})
    lr: float = field(
        default=1e-2, metadata={"help": "learning rate of Adam, > 0; it falls to 0 by a cosine"}
    )
    rows: int = field(default=64, metadata={"help": "random rows of each step, > 0"})
    spread: float = field(
        default=3.0, metadata={"help": "largest standard deviation of the random outputs, > 0"}
    )

    def __post_init__(self) -> None:
        for option in ("steps", "lr", "rows", "spread"):
            value = getattr(self, option)
            check_range(f"start.{option}", value, value > 0, "a positive number")

    @property
    def total(self) -> int:  # type: ignore[override]
        """The number of steps, for ``report``."""
        return self.steps

    def begin(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return φ after the fit. A loss without φ, or with `given` φ, is not fitted."""
        refuse_loaded(loss, "imitate")
        if loss.given:
            return phi_of(loss)
        return self.fit(loss, task_loss, outputs, seed, report)

    def begin_together(
        self,
        losses: Sequence[LearnedLoss],
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seeds: Sequence[int],
        reports: Sequence[Report],
    ) -> list[Tensors]:
        """Return what :meth:`begin` returns for each loss; all are fitted at once."""
        first = losses[0]
        refuse_loaded(first, "imitate")
        phis = [phi_of(loss) for loss in losses]
        if first.given or not moving(first):
            return phis
        stacked = {name: torch.stack([phi[name] for phi in phis]) for name in phis[0]}
        draws = [generator(seed, "imitate") for seed in seeds]
        like = next(iter(phis[0].values()))

        def draw() -> Batch:
            batches = [self.draw(first, outputs, one, like) for one in draws]
            joined: Batch = pytree.tree_map(lambda *values: torch.stack(values), *batches)
            return joined

        misfit = vmap(partial(self._misfit, first, task_loss))

        def report(step: int, misfits: Tensor) -> None:
            for one, value in zip(reports, misfits.tolist(), strict=True):
                one(step, {"start/misfit": value})

        fitted = self._fitted(stacked, moving(first), draw, misfit, report)
        return [{name: value[k] for name, value in fitted.items()} for k in range(len(losses))]

    def fit(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        outputs: int,
        seed: int,
        report: Report | None = None,
    ) -> Tensors:
        """Return φ after the fit, also for a loaded or given φ; the guard needs this."""
        phi = phi_of(loss)
        if not moving(loss):
            return phi
        draws, like = generator(seed, "imitate"), next(iter(phi.values()))
        draw = partial(self.draw, loss, outputs, draws, like)
        misfit = partial(self._misfit, loss, task_loss)

        def tell(step: int, value: Tensor) -> None:
            if report is not None:
                report(step, {"start/misfit": value.item()})

        return self._fitted(phi, moving(loss), draw, misfit, tell)

    def _fitted(
        self,
        every: Tensors,
        names: list[str],
        draw: Callable[[], Batch],
        misfit: Callable[[Tensors, Batch], Tensor],
        report: Callable[[int, Tensor], None],
    ) -> Tensors:
        """Return φ after the fit of those ``names``; ``misfit`` is of one loss or of several."""
        # Half precision is too coarse for small steps: a copy is fitted and rounded at the end.
        phi = {name: _single(every[name]).requires_grad_() for name in names}
        still = {name: value for name, value in every.items() if name not in phi}
        optimizer = torch.optim.Adam(list(phi.values()), lr=self.lr)
        cooling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=self.steps)
        batch = draw()
        slopes: _Slopes = partial(_slopes, lambda own, rows: misfit({**own, **still}, rows))
        if self.steps >= _TRACED_FROM:
            slopes = _traced(slopes, phi, batch)
        for step in range(self.steps):
            found, grads = slopes(phi, batch if step == 0 else draw())
            for name, value in phi.items():
                value.grad = grads[name]
            optimizer.step()
            cooling.step()
            if (step + 1) % _REPORT_EVERY == 0:
                report(step + 1, found)
        return {
            name: phi.get(name, value).detach().to(value.dtype) for name, value in every.items()
        }

    def _misfit(
        self,
        loss: LearnedLoss,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        phi: Tensors,
        batch: Batch,
    ) -> Tensor:
        outputs, targets = batch
        aim = grad(lambda z: task_loss(z, parts_of(targets)[0]))(outputs)
        got = grad(lambda z: value_of(loss, phi, z, targets))(outputs)
        # The mean over a batch has gradients of order 1/rows; this makes them of order 1.
        return ((got - aim) * self.rows).square().mean()

    def draw(self, loss: LearnedLoss, outputs: int, draws: torch.Generator, like: Tensor) -> Batch:
        """Return random raw outputs (rows, C) as inputs, with random targets.

        They get the type and device of ``like``, but single precision at least.
        """
        link = loss.link
        normal = torch.randn(self.rows, outputs, generator=draws)
        spread = self.spread * torch.rand(self.rows, 1, generator=draws)
        if link is Link.softmax:
            targets = random_classes(outputs, self.rows, loss.ignore_index, draws)
        elif link is Link.sigmoid:
            targets = torch.randint(2, (self.rows, outputs), generator=draws).float()
        else:
            # Standardised targets; predictions from accurate to far off.
            targets = torch.randn(self.rows, outputs, generator=draws)
            normal = targets / self.spread + normal
        like = _single(like)
        dtype = like.dtype if targets.is_floating_point() else targets.dtype
        batch = Batch((spread * normal).to(like), targets.to(like.device, dtype))
        # The start is the task loss whatever is known of a row.
        seen, drawn = sees(loss), dict[str, Tensor]()
        if seen:
            drawn["memory"] = torch.rand(self.rows, 2, generator=draws)
            drawn["progress"] = torch.rand(self.rows, generator=draws)
        if "average" in seen:  # after very many visits
            drawn["average"] = _prediction(link, (self.rows, outputs), draws)
            drawn["visits"] = torch.full((self.rows,), math.inf)
        elif "visits" in seen:
            drawn["visits"] = torch.randint(100, (self.rows,), generator=draws)
        known = {name: value.to(like) for name, value in drawn.items() if name in seen}
        return with_row(batch, **known) if known else batch


def _prediction(link: Link, shape: tuple[int, int], draws: torch.Generator) -> Tensor:
    """Return random predictions (B, C): from even to sure, or standardised values."""
    drawn = torch.randn(shape, generator=draws)
    return drawn if link is Link.identity else apply_link(3 * drawn, link)


def _single(value: Tensor) -> Tensor:
    """Return a tensor in single or double precision."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _slopes(
    misfit: Callable[[Tensors, Batch], Tensor], phi: Tensors, batch: Batch
) -> tuple[Tensor, Tensors]:
    """Return the misfit of one loss or of several, and the gradient of each."""
    phi = {name: value.detach().requires_grad_() for name, value in phi.items()}
    with torch.enable_grad():
        found = misfit(phi, batch)
        # The losses are independent: the gradient of the sum contains the gradient of each.
        grads = torch.autograd.grad(found.sum(), list(phi.values()), materialize_grads=True)
    return found.detach(), dict(zip(phi, grads, strict=True))


def _traced(function: _Slopes, phi: Tensors, batch: Batch) -> _Slopes:
    """Return the function as a traced graph, which takes a third of the time.

    A function that cannot be traced, because it branches on values, is returned unchanged.
    """
    try:
        # Without a mode for all nodes, each gets one of its own, which writes down who called.
        with tracing(TracingContext(FakeTensorMode())):
            graph = make_fx(function)(phi, batch)
    except RuntimeError:
        return function

    def run(phi: Tensors, batch: Batch) -> tuple[Tensor, Tensors]:
        with torch.no_grad():
            found: tuple[Tensor, Tensors] = graph(phi, batch)
        return found

    return run


def imitate(
    loss: LearnedLoss,
    task_loss: Callable[[Tensor, Tensor], Tensor],
    outputs: int,
    *,
    seed: int = 0,
    config: Imitate | None = None,
) -> LearnedLoss:
    """Fit a learned loss to the task loss, for your own training loop.

    The loss is changed in place. Frozen parameters (``requires_grad_(False)``) are not changed. The
    ignored class is not drawn as a target.

    Args:
        loss: The learned loss.
        task_loss: ``(raw outputs (B, C), targets) -> scalar``.
        outputs: C, the number of the model's outputs.
        seed: Determines the random outputs and targets.
        config: The options of the fit; None: the defaults.

    Returns:
        The same loss.

    Example:
        >>> from torch.nn.functional import cross_entropy
        >>> from metaloss.losses.scaled import Scaled, ScaledConfig
        >>> fit = Imitate(steps=500)
        >>> loss = Scaled(ScaledConfig(scale=1.5))
        >>> loss = imitate(loss, cross_entropy, outputs=5, config=fit)
        >>> round(loss.scale.item(), 2)
        1.0
    """
    phi = (config or Imitate()).fit(loss, task_loss, outputs, seed)
    write_back(loss, phi, {})
    return loss
