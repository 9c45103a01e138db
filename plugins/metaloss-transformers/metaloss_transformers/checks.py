"""Arguments of a ``Trainer`` that a learned loss cannot follow."""

from __future__ import annotations

from transformers import Trainer

from metaloss.errors import MetalossError


def check(trainer: Trainer) -> None:
    """Raise if the arguments ask for what a learned loss cannot do.

    Raises:
        MetalossError: With the first such argument, and what to change.
    """
    args = trainer.args
    refused = {
        "fp16=True": (args.fp16, "expected bf16=True or neither"),
        "torch_compile=True": (
            args.torch_compile,
            'expected learner={"compile": "on"}, which compiles whole steps',
        ),
        f"label_smoothing_factor={args.label_smoothing_factor}": (
            args.label_smoothing_factor != 0,
            "the loss is learned; smooth the task loss, by task=",
        ),
        "compute_loss_func": (
            trainer.compute_loss_func is not None,
            "the loss is learned; pass what it is learned for by task=",
        ),
        "deepspeed": (bool(args.deepspeed), "expected plain processes (torchrun)"),
        "fsdp": (bool(args.fsdp), "expected plain processes (torchrun)"),
        f"{args.n_gpu} GPUs in one process": (
            args.n_gpu > 1,
            "start one process for each by torchrun, or set CUDA_VISIBLE_DEVICES",
        ),
        f"label_names={trainer.label_names}": (
            len(trainer.label_names) != 1,
            "expected one name",
        ),
    }
    for name, (is_set, instead) in refused.items():
        if is_set:
            raise MetalossError(f"{name}: {instead}")
