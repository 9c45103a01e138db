"""Hugging Face's ``Trainer`` with a learned loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer

import metaloss
from metaloss.core.learner.following import Followed
from metaloss.core.learner.trusted import TrustedBatches
from metaloss.errors import MetalossError, check_whole
from metaloss.losses.export import DESCRIPTION, WEIGHTS, family_of, pack
from metaloss_transformers.checks import check
from metaloss_transformers.tasks import ModelTask, task_of

STATE = "learner.pt"


class LearnedLossTrainer(Trainer):
    """A ``Trainer`` that trains a model under a learned loss, and the loss with it.

    All arguments, schedulers, callbacks, loggers and evaluations are those of ``Trainer``. The
    optimizer must be one that metaloss has too (SGD, Adam, AdamW, RMSprop), such as the default.
    With peft, θ is the adapters alone.

    ``loss`` in the logs is the task loss of the training batches, before their steps. Logged
    besides are ``learned_loss``, ``meta_task_loss`` on the trusted batches, and ``steps_taken``, a
    share. ``grad_norm`` is not logged. Checkpoints hold the states of both optimizers in
    ``learner.pt``, and the loss so that ``metaloss.load_loss(checkpoint)`` loads it.

    Args:
        *args: As for ``Trainer``.
        loss: The learned loss; after training it has the learned φ.
        trusted_dataset: Rows like those of ``train_dataset``, whose labels are trusted. Batches of
            it have the size of training batches: see `TrustedBatches`.
        task: What the model is trained for; None: found by the kind of the model, see `task_of`.
        period: The loss moves every so many steps.
        learner: Further options of `metaloss.Learner`, such as ``{"meta_optimizer": Mixed()}``.
        **kwargs: As for ``Trainer``.

    Attributes:
        learner: The learner; None before training.

    Raises:
        MetalossError: If the arguments ask for what a learned loss cannot do.
    """

    def __init__(
        self,
        *args: Any,
        loss: metaloss.LearnedLoss,
        trusted_dataset: Dataset,
        task: ModelTask | None = None,
        period: int = 1,
        learner: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_whole("period", period, 1)
        self._task = task or task_of(self.accelerator.unwrap_model(self.model))
        check(self)
        self.loss, self.learner = loss, None
        self._period, self._options = period, dict(learner or {})
        self._batches = TrustedBatches(
            self._trusted_loader(trusted_dataset),
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            rank=self.args.process_index,
            size=self.args.world_size,
        )
        self._parts: list[tuple[dict[str, Any], Tensor]] = []
        self._seen: list[dict[str, Tensor]] = []
        self._saved: dict[str, Any] | None = None
        self._steps = 0

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Take a step under the learned loss with the last part of a batch; return its task loss.

        The optimizer then finds no gradients. Other parts are kept until then.
        """
        model.train()
        self._parts.append(self._pair(inputs))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        self._begin()
        assert self.learner is not None
        parts, self._parts = self._parts, []
        meta = self._pair(next(self._batches)) if self._steps % self._period == 0 else None
        self._followed.take_rates()
        several = len(parts) > 1
        losses = self.learner.step(parts if several else parts[0], meta, accumulate=several)
        self._steps += 1
        found = {"learned_loss": losses.inner[-1]}
        if meta is not None:
            found["meta_task_loss"] = losses.meta_task
        if losses.taken is not None:
            found["steps_taken"] = losses.taken.float()
        self._seen.append(found)
        return losses.train_task[-1]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means of the learned loss and the task losses with those of ``Trainer``."""
        if "loss" in logs and self._seen:
            for name in dict.fromkeys(name for found in self._seen for name in found):
                values = [found[name] for found in self._seen if name in found]
                logs[name] = torch.stack(values).mean().item()
            self._seen = []
        super().log(logs, start_time)

    def _begin(self) -> None:
        """Make the learner, or let it go on from a checkpoint."""
        optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        if self.learner is None or self._optimizer is not optimizer:
            self._optimizer = optimizer
            given: dict[str, Any] = {
                "task_loss": self._task.task_loss,
                "output": self._task.output,
                "seed": self.args.seed,
                "precision": "bf16" if self.args.bf16 else "fp32",
                "clip": float(self.args.max_grad_norm or 0.0),
            }
            model = self.accelerator.unwrap_model(self.model)
            self.learner = metaloss.Learner(
                model, self.loss, inner=optimizer, **{**given, **self._options}
            )
            self._followed = Followed(self.learner, optimizer)
        if self._saved is not None:
            self.learner.load_state_dict(self._saved["learner"])
            self._batches.taken, self._steps = self._saved["taken"], self._saved["steps"]
            self._saved = None

    def _pair(self, inputs: Any) -> tuple[dict[str, Any], Tensor]:
        """Return a batch as (inputs, targets), of the same length in all processes."""
        given: dict[str, Any] = dict(self._prepare_inputs(inputs))
        if self.args.world_size > 1:
            given = {name: self._as_long(name, value) for name, value in given.items()}
        (name,) = self.label_names
        if name not in given:
            raise MetalossError(f"a batch has no {name!r}, only {', '.join(map(repr, given))}")
        labels = given.pop(name)
        return given, self._task.targets(labels)

    def _as_long(self, name: str, value: Any) -> Any:
        """Pad a tensor (B, T, ...) to the longest of all processes."""
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        tokenizer: Any = self.processing_class
        fill = -100 if name in self.label_names else 0
        if name == "input_ids":
            fill = getattr(tokenizer, "pad_token_id", None) or 0
        left = getattr(tokenizer, "padding_side", "right") == "left"
        return self.accelerator.pad_across_processes(value, dim=1, pad_index=fill, pad_first=left)

    def _trusted_loader(self, dataset: Any) -> DataLoader:
        """Return a loader of trusted batches, which are collated as training batches."""
        collate: Any = self.data_collator
        if hasattr(dataset, "remove_columns"):
            dataset = self._remove_unused_columns(dataset, description="trusted")
        else:
            collate = self._get_collator_with_removed_columns(collate, description="trusted")
        return DataLoader(
            dataset,
            self.args.train_batch_size,
            shuffle=hasattr(dataset, "__len__") and len(dataset) > 0,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
        )

    # What follows is called by Trainer.

    def _clip_grad_norm(self, model: nn.Module) -> None:
        """Do nothing: the learner limits the norm of its gradient."""

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> None:
        """Return None, which is not logged: there are no gradients."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save the model, and the loss beside it."""
        super()._save(output_dir, state_dict)
        if not self.args.should_save or family_of(self.loss) is None:
            return
        folder = Path(output_dir or self.args.output_dir)
        phi = {name: value.detach() for name, value in self.loss.state_dict().items()}
        weights, description = pack(self.loss, phi, {"step": self.state.global_step})
        (folder / WEIGHTS).write_bytes(weights)
        (folder / DESCRIPTION).write_bytes(description)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the learner's state beside the optimizer's, which is empty."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and self.learner is not None:
            state = {
                "learner": self.learner.state_dict(model=False),
                "taken": self._batches.taken,
                "steps": self._steps,
            }
            torch.save(state, Path(output_dir) / STATE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the learner's state, for the next step."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / STATE
        if not path.is_file():
            raise MetalossError(
                f"{checkpoint} has no {STATE}: it was written by another Trainer, with "
                "save_only_model=True, or not to its end; resume from another checkpoint"
            )
        self._saved = torch.load(path, map_location=self.args.device, weights_only=True)
