"""What models of Hugging Face are trained for: raw outputs, targets and a task loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from metaloss.errors import MetalossError

# Transformers' names (``model.loss_type``) of what a model is trained for.
_ROWS = ("ForSequenceClassification", "ForImageClassification", "ForVideoClassification")
_ROWS = (*_ROWS, "ForAudioClassification")
_PLACES = ("ForTokenClassification", "ForMaskedLM")
_NEXT = ("ForCausalLM", "ForConditionalGeneration")


class ModelTask(NamedTuple):
    """What a model is trained for.

    Attributes:
        output: The raw outputs (B, C, *) from what the model returns.
        targets: The targets (B, *) or (B, C, *) from the labels.
        task_loss: ``(raw outputs, targets) -> scalar``.
    """

    output: Callable[[Any], Tensor]
    targets: Callable[[Tensor], Tensor]
    task_loss: Callable[[Tensor, Tensor], Tensor]


def task_of(model: nn.Module) -> ModelTask:
    """Return what a model is trained for, as its own loss in transformers has it.

    A model of tokens has its classes at the last dimension; the losses expect them at dimension 1.
    A model that predicts the next token (``ForCausalLM``) is compared with the labels one place
    further; one with a decoder of its own gets inputs that are shifted already.

    Args:
        model: A model of transformers, or one of peft.

    Raises:
        MetalossError: If its kind is not known.
    """
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind, config = getattr(inner, "loss_type", None), getattr(inner, "config", None)
    if kind in _ROWS:
        return _rows(str(getattr(config, "problem_type", None)), getattr(config, "num_labels", 0))
    if kind in _PLACES or (kind in _NEXT and getattr(config, "is_encoder_decoder", False)):
        return ModelTask(lambda found: logits(found).transpose(1, 2), _same, F.cross_entropy)
    if kind in _NEXT:
        return ModelTask(
            lambda found: logits(found)[:, :-1].transpose(1, 2),
            lambda labels: labels[:, 1:],
            F.cross_entropy,
        )
    known = ", ".join((*_ROWS, *_PLACES, *_NEXT))
    raise MetalossError(
        f"{type(inner).__name__} is a model for {kind}, whose outputs and targets are not known: "
        f"expected one of {known}, or pass task=ModelTask(output, targets, task_loss)"
    )


def logits(found: Any) -> Tensor:
    """Return the logits among what a model returns."""
    value: Tensor = found["logits"] if "logits" in found else found[0]
    return value


def _rows(problem: str, classes: int) -> ModelTask:
    if problem == "regression" or (problem == "None" and classes == 1):
        return ModelTask(logits, _column, F.mse_loss)
    if problem == "multi_label_classification":
        return ModelTask(logits, _same, F.binary_cross_entropy_with_logits)
    return ModelTask(logits, _same, F.cross_entropy)


def _same(labels: Tensor) -> Tensor:
    return labels


def _column(labels: Tensor) -> Tensor:
    return labels if labels.dim() > 1 else labels.unsqueeze(1)
