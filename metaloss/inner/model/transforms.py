"""Whether code runs eagerly, or under a transform of ``torch.func`` or a tracer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from metaloss.inner.one_thread import one_thread


def is_number(key: Tensor | None) -> bool:
    """Return whether a key can be read: not in a traced program, nor under ``vmap``."""
    if key is None:
        return not torch.compiler.is_compiling()
    return type(key) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(key)


def on_plain_numbers() -> bool:
    """Return whether code runs eagerly: no transform of torch.func, no tracing."""
    return (
        torch._C._functorch.peek_interpreter_stack() is None
        and not torch._C._len_torch_dispatch_stack()
        and not torch.compiler.is_compiling()
    )


@contextmanager
def unfused_attention() -> Iterator[None]:
    """Let attention be computed by plain operations: fused, it has no double backward.

    ``torch.nn.attention.sdpa_kernel`` does the same and takes five times as long, in every pass.
    """
    flags = torch.backends.cuda
    kinds = (
        (flags.flash_sdp_enabled, flags.enable_flash_sdp, False),
        (flags.mem_efficient_sdp_enabled, flags.enable_mem_efficient_sdp, False),
        (flags.cudnn_sdp_enabled, flags.enable_cudnn_sdp, False),
        (flags.math_sdp_enabled, flags.enable_math_sdp, True),
    )
    with one_thread():
        changed = [(put, wanted) for get, put, wanted in kinds if get() is not wanted]
        try:
            for put, wanted in changed:
                put(wanted)
            yield
        finally:
            for put, wanted in changed:
                put(not wanted)
