"""Whether code runs on numbers, or under a transform of ``torch.func`` or a tracer."""

from __future__ import annotations

import torch
from torch import Tensor


def is_number(key: Tensor | None) -> bool:
    """Whether a key can be read: not while a program is traced, nor of many members at once."""
    if key is None:
        return not torch.compiler.is_compiling()
    return type(key) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(key)


def on_plain_numbers() -> bool:
    """Whether code runs on numbers now: no transform of torch.func, no tracing."""
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and not torch._C._len_torch_dispatch_stack()
        and not torch.compiler.is_compiling()
    )
