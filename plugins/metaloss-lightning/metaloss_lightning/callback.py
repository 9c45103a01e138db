"""The callback that lets a ``Trainer`` train under a learned loss."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.utils.data import DataLoader

import metaloss
from metaloss.core.learner.following import Followed
from metaloss.core.learner.trusted import TrustedBatches
from metaloss.errors import MetalossError, check_whole
from metaloss_lightning.calls import first_called, followed, inputs_of
from metaloss_lightning.checks import PRECISIONS, check

_LOGGER = logging.getLogger(__name__)
_TARGETS = ("targets", "target", "labels", "label", "y")


class LearnedLoss(pl.Callback):
    """Trains a ``LightningModule`` under a learned loss, and the loss with it.

    The module and its ``Trainer`` stay as they are. ``training_step`` runs as ever, without
    gradients: what it logs is logged. What it gives the network, and the targets, then make the
    learned step, with the options of the optimizer and the rates of the schedulers that
    ``configure_optimizers`` returns. So a step costs one forward pass more than in a loop of your
    own. Hooks that read ``.grad`` find None.

    Logged are ``learned_loss`` and ``train_task_loss``, which are before the step,
    ``meta_task_loss`` after it, and ``step_taken``. Checkpoints hold φ and the states of both
    optimizers.

    Args:
        loss: The learned loss; after training it has the learned φ.
        trusted: Batches like the training batches, whose labels are trusted: see `TrustedBatches`.
        task_loss: ``(raw outputs, targets) -> scalar``, which the loss is learned for.
        network: The submodule that has the weights, such as ``"model"``. None: what
            ``training_step`` calls first, the module itself or one of its children.
        targets: Returns the targets of a batch. None: the second entry of a pair, or ``targets``,
            ``labels`` and the like of a dictionary.
        period: The loss moves every so many steps.
        learner: Further options of `metaloss.Learner`, such as ``meta_optimizer`` or ``ema``.

    Attributes:
        learner: The learner; None before training.

    Raises:
        MetalossError: At the beginning of training, if the module or the trainer does what cannot
            be followed: several optimizers, manual optimization, a loss that depends on the weights
            in another way than through the network's outputs.

    Example:
        >>> import torch
        >>> from metaloss import MLPLoss
        >>> from torch.utils.data import TensorDataset
        >>> rows = TensorDataset(torch.randn(20, 4), torch.randint(3, (20,)))
        >>> callback = LearnedLoss(
        ...     MLPLoss(), DataLoader(rows, batch_size=8), task_loss=nn.functional.cross_entropy
        ... )
        >>> trainer = pl.Trainer(callbacks=[callback], logger=False, accelerator="cpu")
    """

    def __init__(
        self,
        loss: metaloss.LearnedLoss,
        trusted: DataLoader,
        *,
        task_loss: Callable[[Tensor, Tensor], Tensor],
        network: str | None = None,
        targets: Callable[[Any], Tensor] | None = None,
        period: int = 1,
        **learner: Any,
    ) -> None:
        check_whole("period", period, 1)
        self.loss, self.learner = loss, None
        self._trusted, self._options = trusted, {**learner, "task_loss": task_loss}
        self._name, self._targets, self._period = network, targets or _targets, period
        self._batches: TrustedBatches | None = None
        self._saved: dict[str, Any] | None = None
        self._parts: list[tuple[Any, Tensor]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check the module and its trainer."""
        if stage == "fit":
            check(trainer, pl_module)
            self.learner = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the place of the module's training step and backward pass."""
        own = pl_module.training_step
        if trainer.ckpt_path and self._saved is None:
            _LOGGER.warning("%s has no learned loss: φ begins anew", trainer.ckpt_path)

        def training_step(batch: Any, *rest: Any, **named: Any) -> Any:
            return self._training_step(
                trainer, pl_module, lambda given: own(given, *rest, **named), batch
            )

        pl_module.training_step = training_step
        pl_module.backward = _no_backward

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the module its own methods back."""
        for name in ("training_step", "backward"):
            vars(pl_module).pop(name, None)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the module its own methods back."""
        self.on_train_end(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        """Take the learned step. The optimizer itself then finds no gradients."""
        if not self._parts:
            return
        assert self.learner is not None
        parts, self._parts = self._parts, []
        meta = self._meta_batch(trainer) if self._steps % self._period == 0 else None
        self._followed.take_rates()
        several = len(parts) > 1
        losses = self.learner.step(parts if several else parts[0], meta, accumulate=several)
        self._steps += 1
        found = {"learned_loss": losses.inner[-1], "train_task_loss": losses.train_task[-1]}
        if meta is not None:
            found["meta_task_loss"] = losses.meta_task
        if losses.taken is not None:
            found["step_taken"] = losses.taken.float()
        pl_module.log_dict(found, batch_size=sum(len(targets) for _, targets in parts))

    def state_dict(self) -> dict[str, Any]:
        """Return φ and the states of both optimizers, for Lightning's checkpoint."""
        if self.learner is None or self._batches is None:
            return self._saved or {}
        learner = self.learner.state_dict(model=False)
        return {"learner": learner, "taken": self._batches.taken, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a state for the beginning of training, when the module has its weights."""
        self._saved = state_dict

    def _training_step(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        step: Callable[[Any], Any],
        batch: Any,
    ) -> Any:
        if self.learner is None:
            self._begin(trainer, module, step, batch)
        self._step = step
        result, calls = followed(self._network, lambda: step(batch))
        if result is None:
            return None
        loss = result["loss"] if isinstance(result, Mapping) else result
        if len(calls) != 1:
            raise MetalossError(
                f"training_step calls {self._place} {len(calls)} times: expected once, with all "
                "rows of the batch"
            )
        if loss.requires_grad:
            raise MetalossError(
                "the loss of training_step depends on the weights in another way than through the "
                f"outputs of {self._place}: only a loss of outputs and targets can be learned"
            )
        self._parts.append((calls[0], self._targets(batch)))
        return result

    def _begin(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        step: Callable[[Any], Any],
        batch: Any,
    ) -> None:
        self._name = (
            _network_name(module, lambda: step(batch)) if self._name is None else self._name
        )
        self._network = module.get_submodule(self._name)
        self._place = f"self.{self._name}" if self._name else "self"
        optimizer = trainer.optimizers[0]
        _check_covers(optimizer, self._network, self._place)
        clip = trainer.gradient_clip_val
        given = {"precision": PRECISIONS[str(trainer.precision)]}
        given |= {} if clip is None else {"clip": float(clip)}
        self.learner = metaloss.Learner(
            self._network, self.loss, inner=optimizer, **{**given, **self._options}
        )
        self._followed = Followed(self.learner, optimizer)
        self._batches = TrustedBatches(
            self._trusted,
            seed=self._options.get("seed", 0),
            rank=trainer.global_rank,
            size=trainer.world_size,
        )
        self._steps, self._parts = 0, []
        if self._saved is not None:
            self.learner.load_state_dict(self._saved["learner"])
            self._batches.taken, self._steps = self._saved["taken"], self._saved["steps"]
            self._saved = None

    def _meta_batch(self, trainer: pl.Trainer) -> tuple[Any, Tensor]:
        """Return the next trusted batch, as ``training_step`` would give it to the network."""
        assert self._batches is not None
        batch = trainer.precision_plugin.convert_input(next(self._batches))
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        return inputs_of(self._network, lambda: self._step(batch)), self._targets(batch)


def _no_backward(loss: Tensor, *_: Any, **__: Any) -> None:
    """Do nothing: the learned step computes its own gradients."""


def _network_name(module: pl.LightningModule, run: Callable[[], Any]) -> str:
    children = {name: one for name, one in module.named_children() if list(one.parameters())}
    name = first_called({"": module, **children}, run)
    if name is None:
        raise MetalossError(
            f"{type(module).__name__}.training_step calls neither the module (self(x)) nor one of "
            f"its parts ({', '.join(children)}): pass network= with the path of the submodule that "
            "it calls"
        )
    return name


def _check_covers(optimizer: Any, network: nn.Module, place: str) -> None:
    own = {id(value) for value in network.parameters()}
    for group in optimizer.param_groups:
        for value in group["params"]:
            if value.requires_grad and id(value) not in own:
                raise MetalossError(
                    f"the optimizer has a parameter of shape {tuple(value.shape)} that is not in "
                    f"{place}, which training_step calls first: let one module hold all that is "
                    "trained, such as the LightningModule itself by its forward method"
                )


def _targets(batch: Any) -> Tensor:
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Tensor):
        found: Tensor = batch[1]
        return found
    if isinstance(batch, Mapping):
        for name in _TARGETS:
            if isinstance(batch.get(name), Tensor):
                named: Tensor = batch[name]
                return named
    raise MetalossError(
        f"the batch is a {type(batch).__name__} without targets that are known: expected (inputs, "
        "targets), or pass targets=lambda batch: ..."
    )
