"""A learned loss in the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss import registry
from metaloss.config import Compile, GuardMode
from metaloss.contracts import InnerOptimizer
from metaloss.core.distributed.peers import Peers
from metaloss.core.learner.batches import Pair, as_batch, given_rows
from metaloss.core.learner.state import checked_state, copied, refilled
from metaloss.core.learner.steps import LearnerLosses, LearnerStep
from metaloss.core.parts.wrapped import refuse_wrapped
from metaloss.errors import DivergedError, MetalossError, known_name
from metaloss.inner.keys import key_tensor
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.model.modules import fingerprint
from metaloss.inner.model.write_back import write_back
from metaloss.inner.optimizers.idle import Parked, park, taken_up
from metaloss.inner.optimizers.rates import RateSchedule
from metaloss.inner.problem import InnerProblem
from metaloss.inner.sharded import ShardedProblem
from metaloss.losses.base import LearnedLoss
from metaloss.meta_optimizers.fitting import fitted
from metaloss.meta_optimizers.outer import OuterRule
from metaloss.types import InnerState, Tensors, Window

_FORMS = 16  # of a model, such as with and without dropout, are kept ready


class Learner:
    """Trains a model and its loss together in your own loop, with one call for each step.

    The model and the loss are ordinary modules. Each step uses them as they are: their current
    weights, buffers and φ, frozen parameters, and modes. After a step they have the new values. A
    step with a result that is not finite is not taken (``guard``).

    Under torchrun, every process passes its own rows (call ``init_process_group`` first). A step
    gives the result of one process on all rows, in the order of the ranks.

    Before the first step, and again when submodules, modes or trained parameters have changed, the
    model is examined: two forward passes find its side effects, and before the first meta-step its
    derivatives are tested on a few rows. A model without correct derivatives is refused.

    Args:
        model: The network, on its device.
        loss: The learned loss; moved to the model's device.
        task_loss: ``(raw outputs, targets) -> scalar``, which the meta-gradient is computed from.
        inner: The optimizer of the model: an inner optimizer, or its registered name.
        meta_optimizer: The engine that learns the loss, or its registered name.
        seed: Determines the dropout masks.
        guard: ``"on"``: a step that is not finite does not change model and loss, and the returned
            losses have ``taken`` false. ``"raise"``: it raises an error, so that every step waits
            for the device. ``"off"``: no check.
        compile: ``"on"``: compile the steps. This takes one to two minutes at the first step, and
            again for a batch of another size (use ``drop_last=True``). ``"trace"``: trace and
            optimise the steps, but run them without the compiler. In both cases, plain numbers in
            the loss or ``task_loss`` are constant after the first step; use a buffer, changed in
            place, for values that change. ``"off"``: neither.

    Raises:
        MetalossError: If the model has no trainable parameters or an argument has the wrong type.

    Example:
        >>> from metaloss import MLPLoss
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
        inner: InnerOptimizer | str = "sgd",
        meta_optimizer: OuterRule | str = "mixed",
        seed: int = 0,
        guard: GuardMode | str = "on",
        compile: Compile | str = Compile.off,
    ) -> None:
        self._model, self._loss = model, loss
        self._engine: OuterRule = registry.as_part(
            "meta_optimizer",
            meta_optimizer,
            OuterRule,  # type: ignore[type-abstract]
            option="meta_optimizer",
            example="Mixed(lr=0.003)",
        )
        optimizer = registry.as_part(
            "inner",
            inner,
            InnerOptimizer,  # type: ignore[type-abstract]
            option="inner",
            example="SGD(lr=0.1)",
        )
        if self._engine.lr_schedule is not RateSchedule.constant:
            raise MetalossError(
                f"meta_optimizer.lr_schedule={self._engine.lr_schedule.name}: a loop of your own "
                "has no known number of steps; expected constant"
            )
        refuse_wrapped(model)
        refuse_wrapped(loss, "loss")
        self._compile = Compile(known_name("compile", compile, ["off", "trace", "on"]))
        settings = {"seed": seed, "inner": optimizer, "meta_optimizer": self._engine}
        self._peers = Peers(self._held, settings, self._compile)
        shared = self._peers.ranks.size > 1
        self._functional = FunctionalModel(model, live=True, shared=shared)
        params, _ = self._functional.state()
        if not params:
            raise MetalossError("the model has no parameters that require a gradient")
        self._device = next(iter(params.values())).device
        loss.to(self._device)
        self._problem = InnerProblem(
            model=self._functional, loss=loss, task_loss=task_loss, optimizer=optimizer
        )
        self._guard = GuardMode[known_name("guard", guard, ["on", "off", "raise"])]
        self._forms: dict[Any, LearnerStep] = {}
        self._optimizer = self._problem.optimizer.init(params)
        self._trained, self._parked = list(params), Parked()
        self._shapes = {name: value.shape for name, value in params.items()}
        self._outer = self._engine.outer_init(self._phi())
        self._seed, self._steps = seed, 0

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._model

    @property
    def loss(self) -> LearnedLoss:
        """The learned loss."""
        return self._loss

    def step(self, batch: Pair | list[Pair], meta_batch: Pair | None = None) -> LearnerLosses:
        """Take one step of the model, and then a meta-step of the loss.

        Args:
            batch: (inputs, targets), on the model's device; or a list of K such pairs: K steps,
                and the meta-gradient goes through all of them. The inputs may be a tuple, list or
                dictionary of tensors.
            meta_batch: The batch for the task loss; None: no meta-step.

        Returns:
            The losses, as tensors on the device; ``meta_task`` is NaN without a meta-batch.

        Raises:
            MetalossError: If a batch is invalid; at the first step, if the model cannot be used
                with this engine, or the step cannot be compiled.
            DivergedError: If the step is not finite, with ``guard="raise"``.
        """
        if torch.is_inference_mode_enabled():
            raise MetalossError(
                "step() under torch.inference_mode, which allows no gradients: call it outside"
            )
        batches, judge = self._peers.whole(lambda: given_rows(batch, meta_batch), self._steps)
        keys = tuple(self._key("train", self._steps + k) for k in range(len(batches)))
        self._functional.refresh()
        params, buffers = self._functional.state()
        self._follow(params)
        state, phi = InnerState(params, buffers, self._optimizer), self._phi()
        window = Window(batches, keys, judge or batches[0], self._key("meta", self._steps))
        learns = judge is not None
        take = self._step_of(phi, state, window, learns=learns)
        state, phi, outer, losses = take(phi, state, self._outer, window, learns)
        if self._guard is GuardMode.raise_ and not losses.taken:
            raise DivergedError(f"step {self._steps}: a result is not finite (guard=raise)")
        if learns:
            write_back(self.loss, phi, {})
        write_back(self.model, state.params, state.buffers)
        self._optimizer, self._outer = state.optimizer, outer
        self._steps += len(batches)
        self._peers.took()
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
        self._functional.refresh()
        params, buffers = self._functional.state()
        total, rows = 0.0, 0
        for pair in batches:
            inputs, targets = pytree.tree_map_only(
                Tensor, lambda value: value.to(self._device), as_batch("a batch", pair)
            )
            outputs, _ = self._functional(params, buffers, inputs, train=False)
            total += float(metric(outputs, targets)) * len(targets)
            rows += len(targets)
        if not rows:
            raise MetalossError("evaluate() got no batches; expected one or more")
        return total / rows

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`; ``torch.load`` can read it safely."""
        # Copies, because the next step changes the tensors of the modules.
        return {
            "model": copied(self.model.state_dict()),
            "attributes": self._functional.attributes(),
            "loss": copied(self.loss.state_dict()),
            "optimizer": pytree.tree_leaves(self._optimizer),
            "trained": list(self._trained),
            "parked": {name: copied(own) for name, own in self._parked.items()},
            "outer": pytree.tree_leaves(self._outer),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from :meth:`state_dict`.

        Raises:
            MetalossError: If it is of another model, loss or optimizer. Then nothing is changed.
        """
        self._functional.refresh()
        self._follow(self._functional.state()[0])
        checked_state(state, self.model, self.loss, self._trained)
        optimizer = refilled(self._optimizer, state["optimizer"])
        outer = refilled(self._outer, state["outer"])
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        write_back(self.model, {}, state.get("attributes", {}))
        self._optimizer, self._outer = optimizer, outer
        self._parked = {name: copied(own) for name, own in state.get("parked", {}).items()}
        self._steps = state["steps"]

    def _step_of(
        self, phi: Tensors, state: InnerState, window: Window, *, learns: bool
    ) -> LearnerStep:
        """Return the step for the current model and loss; examine them if they have changed."""
        numbers = self._compile is not Compile.off and fingerprint(self.model, numbers=True)
        steps = min(len(window.batches), 2)
        form = (self._functional.structure, fingerprint(self.loss), numbers, learns, steps)
        if form not in self._forms:
            model = self._functional
            if model.traits is None:
                model.examine(state.params, state.buffers, window.batches[0].inputs, window.keys[0])
            problem = InnerProblem.of(self._problem)  # finds again which parameters in φ are frozen
            if learns:
                problem = fitted(problem, self._engine, phi, state, window)
            if self._peers.ranks.size > 1:
                problem = ShardedProblem.of(problem, ranks=self._peers.ranks)
                self._peers.check(problem, state, window.batches[0], window.keys[0])
            step = LearnerStep(
                problem,
                self._engine,
                guarded=self._guard is not GuardMode.off,
                compile=self._compile,
            )
            step.check(phi, state, window.batches[0], window.keys[0])
            if len(self._forms) == _FORMS:
                self._forms.pop(next(iter(self._forms)))
            self._forms[form] = step
        return self._forms[form]

    def _follow(self, params: Tensors) -> None:
        """Adapt the optimizer's state to the parameters that are trained now."""
        if not params:
            raise MetalossError("the model has no parameters that require a gradient")
        device = next(iter(params.values())).device
        if device != self._device:
            raise MetalossError(
                f"the model was moved from {self._device} to {device}: make a new Learner"
            )
        shapes = {name: value.shape for name, value in params.items()}
        if shapes == self._shapes and list(params) == self._trained:
            return
        self._shapes = shapes
        self._parked |= park(self._optimizer, self._trained)
        self._optimizer = taken_up(self._problem.optimizer, self._optimizer, params, self._parked)
        self._trained = list(params)

    def _held(self) -> dict[str, list[Tensor]]:
        """Return the tensors that must be the same in all processes."""
        modules = {"model": self.model, "loss": self.loss}
        return {name: [*one.parameters(), *one.buffers()] for name, one in modules.items()}

    def _phi(self) -> Tensors:
        return {name: value.detach().clone() for name, value in self.loss.named_parameters()}

    def _key(self, purpose: str, number: int) -> Tensor:
        return key_tensor(self._seed, f"dropout/{purpose}", number, device=self._device)
