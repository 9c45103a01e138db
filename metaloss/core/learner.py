"""A learned loss in the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss import registry
from metaloss.config import Compile
from metaloss.contracts import InnerOptimizer
from metaloss.core.own_steps import OwnSteps
from metaloss.errors import MetalossError, unknown_name
from metaloss.inner.functional import FunctionalModel, write_back
from metaloss.inner.keys import key_tensor
from metaloss.inner.problem import InnerProblem
from metaloss.inner.sgd import SGD
from metaloss.inner.steps import as_seen
from metaloss.losses.base import LearnedLoss
from metaloss.meta_optimizers.mixed import Mixed
from metaloss.meta_optimizers.outer import OuterRate, OuterRule
from metaloss.types import Batch, InnerState, StepLosses, Window

Pair = tuple[Tensor, Tensor] | Batch


class Learner:
    """Trains a model and its loss together, one call a step; the loop stays yours.

    The model and the loss stay ordinary modules: after every step they hold the current weights,
    buffers and φ, and what you write into them is what the next step starts from.

    Args:
        model: The base model, on its device.
        loss: The learned loss; moved to the model's device.
        task_loss: ``(raw outputs, targets) -> scalar``: what the loss is judged by.
        inner: How the model moves; default ``SGD(lr=0.1)``.
        meta_optimizer: How the loss moves: an engine, or its registered name.
        seed: Decides the dropout masks.
        compile: ``"on"``: compile the steps, at the first of every form: one to two minutes, again
            for a last batch with fewer rows (``drop_last=True`` avoids it). ``"trace"``: rewrite
            them in the same way, and run them without the compiler. What the loss or ``task_loss``
            holds outside of tensors, such as a plain number, is then fixed at the first step: what
            is to change belongs in a buffer, written in place.

    Raises:
        MetalossError: If the model has nothing to train or an argument is of the wrong kind.

    Example:
        >>> from metaloss.losses import MLPLoss
        >>> model, loss = nn.Linear(3, 2), MLPLoss()
        >>> learner = Learner(model, loss, task_loss=nn.functional.cross_entropy)
        >>> batch = torch.randn(8, 3), torch.randint(2, (8,))
        >>> losses = learner.step(batch, meta_batch=batch)
        >>> losses.inner.shape, losses.meta_task.shape
        (torch.Size([1]), torch.Size([]))
    """

    def __init__(
        self,
        model: nn.Module,
        loss: LearnedLoss,
        *,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        inner: InnerOptimizer | None = None,
        meta_optimizer: OuterRule | str | None = None,
        seed: int = 0,
        compile: Compile | str = Compile.off,
    ) -> None:
        if isinstance(meta_optimizer, str):
            meta_optimizer = registry.get("meta_optimizer", meta_optimizer).cls()
        for name, value, kind in (
            ("inner", inner, InnerOptimizer),
            ("meta_optimizer", meta_optimizer, OuterRule),
        ):
            if value is not None and not isinstance(value, kind):
                raise MetalossError(
                    f"{name} is a {type(value).__name__}: expected {kind.__name__}, such as "
                    f"{'SGD(lr=0.1)' if name == 'inner' else 'Mixed(lr=0.003)'}"
                )
        self.model, self.loss = model, loss
        self._engine: OuterRule = meta_optimizer or Mixed()  # type: ignore[assignment]
        if self._engine.lr_schedule is not OuterRate.constant:
            raise MetalossError(
                f"meta_optimizer.lr_schedule={self._engine.lr_schedule.name}: a loop of your own "
                "has no known end to fall towards; expected constant"
            )
        functional = FunctionalModel(model)
        params, _ = functional.state(model)
        if not params:
            raise MetalossError("the model has no parameters that require a gradient")
        self._device = next(iter(params.values())).device
        functional.to(self._device)
        loss.to(self._device)
        self._problem = InnerProblem(
            model=functional, loss=loss, task_loss=task_loss, optimizer=inner or SGD()
        )
        self._own = OwnSteps(self._problem, self._engine, _kind(compile))
        self._optimizer = self._problem.optimizer.init(params)
        self._outer = self._engine.outer_init(self._phi())
        self._seed, self._steps, self._tried = seed, 0, False

    def step(self, batch: Pair | list[Pair], meta_batch: Pair | None = None) -> StepLosses:
        """Move the model by one step, and then the loss.

        Args:
            batch: (inputs, targets), on the model's device; or a list of K such pairs: K steps,
                and the loss moves by the gradient through all of them.
            meta_batch: The rows that judge the loss; None: the loss does not move.

        Returns:
            The losses seen, as tensors on the device; ``meta_task`` is NaN without a meta-batch.

        Raises:
            MetalossError: At the first step, if it is to be compiled and cannot be.
        """
        batches = _as_batches(batch)
        keys = tuple(self._key("train", self._steps + k) for k in range(len(batches)))
        params, buffers = self._problem.model.state(self.model)
        state = InnerState(params, buffers, self._optimizer)
        phi = self._phi()
        if not self._tried:
            self._own.check(phi, state, batches[0], keys[0])
            self._tried = True
        if meta_batch is None:
            state, losses = self._own.rest(phi, state, tuple(as_seen(batches, keys)))
        else:
            window = Window(batches, keys, Batch(*meta_batch), self._key("meta", self._steps))
            state, phi, self._outer, losses = self._own.move(phi, state, self._outer, window)
            write_back(self.loss, phi, {})
        write_back(self.model, state.params, state.buffers)
        self._optimizer = state.optimizer
        self._steps += len(batches)
        return losses

    @torch.no_grad()
    def evaluate(
        self,
        batches: Iterable[Pair],
        metric: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> float:
        """Return the mean over rows of a metric, by default the task loss, in evaluation mode.

        Args:
            batches: (inputs, targets) pairs, such as a ``DataLoader``.
            metric: ``(raw outputs, targets) -> scalar``, a mean over rows.
        """
        metric = metric or self._problem.task_loss
        params, buffers = self._problem.model.state(self.model)
        total, rows = 0.0, 0
        for inputs, targets in batches:
            inputs, targets = inputs.to(self._device), targets.to(self._device)
            outputs, _ = self._problem.model(params, buffers, inputs, train=False)
            total += float(metric(outputs, targets)) * len(targets)
            rows += len(targets)
        if not rows:
            raise MetalossError("evaluate() was given no batches")
        return total / rows

    def state_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state_dict` needs; ``torch.load`` reads it safely."""
        # Copies: the modules' own tensors are what the next step writes into.
        return {
            "model": _copied(self.model.state_dict()),
            "loss": _copied(self.loss.state_dict()),
            "optimizer": pytree.tree_leaves(self._optimizer),
            "outer": pytree.tree_leaves(self._outer),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state that :meth:`state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self._optimizer = _refilled(self._optimizer, state["optimizer"])
        self._outer = _refilled(self._outer, state["outer"])
        self._steps = state["steps"]

    def _phi(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.loss.named_parameters()}

    def _key(self, purpose: str, number: int) -> Tensor:
        return key_tensor(self._seed, f"dropout/{purpose}", number, device=self._device)


def _kind(given: Compile | str) -> Compile:
    name = given.value if isinstance(given, Compile) else given
    known = ["off", "trace", "on"]
    if name not in known:
        raise unknown_name("compile", str(name), known)
    return Compile(name)


def _as_batches(batch: Pair | list[Pair]) -> tuple[Batch, ...]:
    if not len(batch):
        raise MetalossError("step() was given an empty list of batches")
    # A DataLoader's batch is a list as well: [inputs, targets].
    pairs = [batch] if isinstance(batch[0], Tensor) else batch
    return tuple(Batch(*pair) for pair in pairs)


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.clone() if isinstance(value, Tensor) else value for name, value in state.items()
    }


def _refilled(tree: Any, leaves: list[Tensor]) -> Any:
    own, spec = pytree.tree_flatten(tree)
    if len(own) != len(leaves):
        raise MetalossError(
            f"the state has {len(leaves)} values, this learner needs {len(own)}: it was made with "
            "another optimizer or model"
        )
    return pytree.tree_unflatten([leaf.clone() for leaf in leaves], spec)
