"""The meta-gradient as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from metaloss import registry
from metaloss.contracts import GradientMetaOptimizer
from metaloss.core.learner.batches import Pair, as_batch, refuse_unfit
from metaloss.core.learner.forms import refuse_rows_of_runs, refuse_without_phi
from metaloss.core.learner.optimizer_state import Inner, OptimizerState, as_groups, rates_given
from metaloss.core.parts.wrapped import refuse_wrapped
from metaloss.errors import MetalossError
from metaloss.inner.keys import key_tensor
from metaloss.inner.model.functional import FunctionalModel
from metaloss.inner.model.outputs import Choice, Heads
from metaloss.inner.problem import InnerProblem
from metaloss.losses.base import phi_of
from metaloss.meta_optimizers.engine import Engine
from metaloss.meta_optimizers.fitting import fitted
from metaloss.types import InnerState, Tensors, Window


def meta_gradient(
    model: nn.Module,
    loss: nn.Module,
    train_batches: Sequence[Pair],
    meta_batch: Pair,
    *,
    inner: Inner,
    task_loss: Callable[[Tensor, Tensor], Tensor],
    engine: GradientMetaOptimizer | str = "mixed",
    output: Choice | Heads | None = None,
) -> Tensors:
    """Return d(task loss)/dφ after K inner steps from the model's current weights.

    This function is for your own loops and tests. Runs and `Learner` call the same engines.

    Nothing is changed: not the model, its buffers, the loss or the global random state. The inner
    optimizer begins with an empty state. Dropout masks are drawn with seed 0, so that they are the
    same at every call and with every engine.

    Args:
        model: The network; inner steps and task loss use train mode.
        loss: The learned loss, ``(raw outputs, targets) -> scalar``; φ is its parameters.
        train_batches: K (inputs, targets) pairs, one for each inner step, on the model's device.
        meta_batch: (inputs, targets) for the task loss.
        inner: The optimizer of θ, as for `Learner`.
        task_loss: ``(raw outputs, targets) -> scalar``.
        engine: The engine, or its registered name. All exact engines return the same values.
        output: Which of the things that the model returns are the raw outputs; see `Learner`.

    Returns:
        One tensor for each parameter of the loss, by name and with its shape.

    Raises:
        MetalossError: If there are no batches or rows, no φ or no θ, an argument has the wrong
            type, the engine is unknown, or the loss sees of a row what only a run keeps.
        UnsupportedError: If the engine cannot differentiate this model; the message names one that
            can.

    Example:
        One step on φ·w² from w = 3, with φ = 1 and rate 0.1, ends at w' = 3 − 0.1·2·3·φ = 2.4, so
        that d(w'²)/dφ = 2 · 2.4 · (−0.6):

        >>> import torch
        >>> from metaloss import SGD, Scaled
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> batch = torch.ones(1, 1), torch.zeros(1, 1)
        >>> meta_gradient(
        ...     model,
        ...     Scaled(link="identity"),
        ...     [batch],
        ...     batch,
        ...     inner=SGD(lr=0.1, momentum=0.0),
        ...     task_loss=nn.functional.mse_loss,
        ... )
        {'scale': tensor(-2.8800)}
    """
    chosen = registry.as_part(
        "meta_optimizer",
        engine,
        GradientMetaOptimizer,  # type: ignore[type-abstract]
        option="engine",
        example="Mixed()",
    )
    batches = tuple(as_batch("train_batches", pair) for pair in train_batches)
    if not batches:
        raise MetalossError("train_batches is empty: expected one or more (inputs, targets) pairs")
    meta = as_batch("meta_batch", meta_batch)
    refuse_unfit(batches, meta, task_loss, parts=False)
    refuse_wrapped(loss, "loss")
    refuse_rows_of_runs(loss, "meta_gradient()")
    phi = phi_of(loss)
    refuse_without_phi(loss, phi)
    refuse_wrapped(model)
    functional = FunctionalModel(model, live=True, output=output)
    params, buffers = functional.state(model)
    optimizer = as_groups(inner, model)
    problem = InnerProblem(model=functional, loss=loss, task_loss=task_loss, optimizer=optimizer)
    begun = OptimizerState(optimizer, rates_given(inner), params)
    window = Window(
        batches,
        tuple(key_tensor(0, "dropout/train", k, device=begun.device) for k in range(len(batches))),
        meta,
        key_tensor(0, "dropout/meta", 0, device=begun.device),
    )
    state = InnerState(params, buffers, begun.before(0, len(batches)))
    functional.examine(params, buffers, batches[0].inputs, window.keys[0])
    if isinstance(chosen, Engine):
        problem = fitted(problem, chosen, phi, state, window)
    found = chosen.meta_gradient(problem, phi, state, window)
    if given := found.losses.meta_task.shape:
        raise MetalossError(f"task_loss returns the shape {tuple(given)}: expected a scalar")
    return found.gradient
