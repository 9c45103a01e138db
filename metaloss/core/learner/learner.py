"""A learned loss in the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaloss.config import Compile, GuardMode, Precision
from metaloss.core.distributed.peers import Peers
from metaloss.core.learner.batches import Pair, given_rows, refuse_unfit
from metaloss.core.learner.evaluation import mean_over_rows
from metaloss.core.learner.forms import Forms, autocast_of, engine_of
from metaloss.core.learner.optimizer_state import (
    Inner,
    OptimizerState,
    Rates,
    as_groups,
    rates_given,
)
from metaloss.core.learner.state import checked_state, copied, refilled
from metaloss.core.learner.steps import LearnerLosses
from metaloss.core.parts.wrapped import refuse_wrapped
from metaloss.errors import DivergedError, MetalossError, known_name
from metaloss.inner.accumulated import AccumulatedProblem, MicroBatches
from metaloss.inner.keys import key_tensor
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.model.modules import duplicate
from metaloss.inner.model.outputs import Choice, Heads
from metaloss.inner.model.write_back import write_back
from metaloss.losses.base import LearnedLoss, phi_of
from metaloss.meta_optimizers.engine import Engine
from metaloss.types import InnerState, Window


class Learner:
    """Trains a model and its loss together in your own loop, with one call for each step.

    The model and the loss are ordinary modules. Each step begins with their current weights,
    buffers, φ, frozen parameters and modes. If a result is not finite, it is not taken (``guard``).

    Under torchrun, every process passes its own rows (call ``init_process_group`` first). A step
    gives the result of one process on all rows, in the order of the ranks.

    Before the first step, and again when submodules, modes or trained parameters have changed, two
    forward passes find the model's side effects. Before the first meta-step its derivatives are
    tested on a few rows. A model without correct ones is refused.

    Args:
        model: The network, on its device.
        loss: The learned loss; moved to the model's device.
        task_loss: ``(raw outputs, targets) -> scalar``, which the meta-gradient is computed from.
        inner: The optimizer of the model: an inner optimizer, its registered name, `ParamGroups`,
            or an optimizer or scheduler of ``torch.optim``, which is translated: SGD, Adam, AdamW
            or RMSprop that has taken no step, and any scheduler that depends on the step alone.
        meta_optimizer: The engine that learns the loss, or its registered name.
        seed: Determines the dropout masks.
        guard: ``"on"``: a step that is not finite does not change model and loss, and the returned
            losses have ``taken`` false. ``"raise"``: it raises an error, so that every step waits
            for the device. ``"off"``: no check.
        compile: ``"on"``: compile the steps. This takes one to two minutes at the first step, and
            again for a batch of another size (use ``drop_last=True``). ``"trace"``: trace the steps
            without the compiler. In both cases, plain numbers in the loss or ``task_loss`` are
            constant after the first step; use a buffer, changed in place. ``"off"``: neither.
        ema: The decay of an exponential moving average of the weights, in [0, 1), such as 0.999;
            0: none. It equals that of ``torch.optim.swa_utils``; see :meth:`ema_model`.
        output: Which of the things that the model returns are the raw outputs: a key or attribute,
            a place, or a function of what it returns. None: a tensor, ``logits``, ``out`` or the
            first tensor. A dictionary gives several outputs their shares of the learned loss, such
            as ``{"logits": 1.0, "aux_logits": 0.4}``; the task loss is that of the first one.
        precision: ``"bf16"``: training forward passes of a model in fp32 run in bfloat16.
        clip: The largest norm of the gradient in θ; None: that of ``inner``; 0: no limit.

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
        inner: Inner = "sgd",
        meta_optimizer: Engine | str = "mixed",
        seed: int = 0,
        guard: GuardMode | str = "on",
        compile: Compile | str = Compile.off,
        ema: float = 0.0,
        output: Choice | Heads | None = None,
        precision: Precision | str = Precision.fp32,
        clip: float | None = None,
    ) -> None:
        self._model, self._loss = model, loss
        self._engine = engine_of(meta_optimizer)
        refuse_wrapped(model)
        refuse_wrapped(loss, "loss")
        compile = Compile(known_name("compile", compile, ["off", "trace", "on"]))
        optimizer = as_groups(inner, model, ema, clip)
        settings = {"seed": seed, "inner": optimizer, "meta_optimizer": self._engine}
        self._peers = Peers(self._held, settings, compile)
        view: Any = {"shared": self._peers.ranks.size > 1, "autocast": autocast_of(precision)}
        self._functional = FunctionalModel(model, live=True, output=output, **view)
        self._inner = OptimizerState(optimizer, rates_given(inner), self._functional.state()[0])
        loss.to(self._inner.device)
        self._problem = AccumulatedProblem(
            model=self._functional, loss=loss, task_loss=task_loss, optimizer=optimizer
        )
        self._guard = GuardMode[known_name("guard", guard, ["on", "off", "raise"])]
        options: Any = {"guarded": self._guard is not GuardMode.off, "compile": compile}
        self._forms = Forms(self._problem, self._engine, self._peers, **options)
        self._rule = self._engine.rule_init(phi_of(self.loss))
        self._seed, self._steps = seed, 0

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self._model

    @property
    def loss(self) -> LearnedLoss:
        """The learned loss."""
        return self._loss

    def step(
        self,
        batch: Pair | list[Pair],
        meta_batch: Pair | list[Pair] | None = None,
        *,
        accumulate: bool = False,
    ) -> LearnerLosses:
        """Take one step of the model, and then a meta-step of the loss.

        Args:
            batch: (inputs, targets), on the model's device; or a list of K such pairs: K steps,
                and the meta-gradient goes through all of them. The inputs may be a tuple, list or
                dictionary of tensors. A third entry holds weights (B,) ≥ 0 of the rows: then both
                losses are weighted means, or 0 if all weights are 0. On a GPU, a weight that is
                negative or not finite makes the losses NaN instead of raising an error.
            meta_batch: The batch for the task loss; None: no meta-step.
            accumulate: The pairs in a list are parts of one batch, for one step, and only one of
                them at a time is in memory. Both losses must be means over rows. The step is that
                of the whole batch, except that BatchNorm uses the moments of each part, and that
                dropout draws other masks. ``meta_batch`` may then be a list too.

        Returns:
            The losses, as tensors on the device; ``meta_task`` is NaN without a meta-batch.

        Raises:
            MetalossError: If a batch is invalid; at the first step, if the model cannot be used
                with this engine, or the step cannot be compiled.
            DivergedError: If the step is not finite, with ``guard="raise"``.
        """
        if torch.is_inference_mode_enabled():
            raise MetalossError("step() under torch.inference_mode: call it outside")
        rows, meta = self._peers.whole(
            lambda: given_rows(batch, meta_batch, accumulate), self._steps
        )
        refuse_unfit(rows, meta, self._problem.task_loss, parts=accumulate)
        batches: Any = (MicroBatches(rows),) if accumulate else rows
        keys = tuple(self._key("train", self._steps + k) for k in range(len(batches)))
        self._functional.refresh()
        params, buffers = self._functional.state()
        self._inner.follow(params)
        optimizer = self._inner.before(self._steps, len(batches))
        state, phi = InnerState(params, buffers, optimizer), phi_of(self.loss)
        window = Window(batches, keys, meta or batches[0], self._key("meta", self._steps))
        learns = meta is not None
        take = self._forms.step(phi, state, window, learns=learns)
        state, phi, rule, losses = take(phi, state, self._rule, window, learns)
        if self._guard is GuardMode.raise_ and not losses.taken:
            raise DivergedError(f"step {self._steps}: a result is not finite (guard=raise)")
        if learns:
            write_back(self.loss, phi, {})
        write_back(self.model, state.params, state.buffers)
        self._inner.after(state.optimizer)
        self._rule = rule
        self._steps += len(batches)
        self._peers.took()
        return losses

    def set_lr(self, lr: Rates | Callable[[int], Rates]) -> None:
        """Set the learning rate of the model's optimizer, from the next step on.

        Nothing is compiled again. If the optimizer has a ``schedule``, it begins with this rate.

        Args:
            lr: A number ≥ 0; a list with one for each group; or a function of the number of steps
                so far (0 for the first step) that returns one of these. A function is not part of
                :meth:`state_dict`: set it again before a saved learner goes on.

        Raises:
            MetalossError: If a rate is negative or not finite, or there is not one for each group.

        Example:
            >>> from metaloss import MLPLoss
            >>> model = nn.Linear(3, 2)
            >>> learner = Learner(model, MLPLoss(), task_loss=nn.functional.cross_entropy)
            >>> learner.set_lr(lambda step: 0.1 * min(1, (step + 1) / 500))  # a warm-up
        """
        self._inner.set_lr(lr)

    def ema_model(self) -> nn.Module:
        """Return a copy of the model with the moving averages of its weights (``ema``).

        Buffers, and parameters that were never trained, are those of the model.

        Raises:
            MetalossError: If the learner was made without ``ema``.
        """
        copy = duplicate(self.model)
        write_back(copy, self._inner.mean, {})
        return copy

    @torch.no_grad()
    def evaluate(
        self,
        batches: Iterable[Pair],
        metric: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        ema: bool = False,
    ) -> float:
        """Return the mean over rows of a metric, by default the task loss, in evaluation mode.

        Args:
            batches: (inputs, targets) pairs, such as a ``DataLoader``.
            metric: ``(raw outputs, targets) -> scalar``, a mean over rows.
            ema: Whether to use the moving averages of the weights.
        """
        metric = metric or self._problem.task_loss
        self._functional.refresh()
        params, buffers = self._functional.state()
        if ema:
            params |= self._inner.mean
        predict = partial(self._functional, params, buffers, train=False)
        ignored = getattr(self.loss, "ignore_index", None)
        return mean_over_rows(predict, batches, metric, self._inner.device, ignored)

    def state_dict(self, *, model: bool = True) -> dict[str, Any]:
        """Return the state, as copies, for :meth:`load_state_dict`; ``torch.load`` reads it safely.

        Args:
            model: Whether the model's weights and buffers are part of it. If not, those that the
                model has are kept at loading.
        """
        weights = {"model": copied(self.model.state_dict())} if model else {}
        return weights | {
            "attributes": self._functional.attributes(),
            "loss": copied(self.loss.state_dict()),
            **self._inner.saved(),
            "outer": pytree.tree_leaves(self._rule),
            "steps": self._steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state from :meth:`state_dict`.

        Raises:
            MetalossError: If it is of another model, loss or optimizer. Then nothing is changed.
        """
        self._functional.refresh()
        self._inner.follow(self._functional.state()[0])
        checked_state(state, self.model, self.loss, self._inner.trained)
        optimizer = self._inner.restored(state)
        rule = refilled(self._rule, state["outer"])
        if "model" in state:
            self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        write_back(self.model, {}, state.get("attributes", {}))
        self._inner.restore(optimizer)
        self._rule = rule
        self._steps = state["steps"]

    def _held(self) -> dict[str, list[Tensor]]:
        """Return the tensors that must be the same in all processes."""
        modules = {"model": self.model, "loss": self.loss}
        return {name: [*one.parameters(), *one.buffers()] for name, one in modules.items()}

    def _key(self, purpose: str, number: int) -> Tensor:
        return key_tensor(self._seed, f"dropout/{purpose}", number, device=self._inner.device)
