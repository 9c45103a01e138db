"""Where broken parts are noted: (suite, check, words in its message, how to make the part)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from metaloss.testing import Checks


class Specimen(NamedTuple):
    suite: type[Checks]
    check: str
    words: str
    make: Callable[[], Any]


SPECIMENS: list[Specimen] = []


def specimen(suite, check, words):
    """Note a class, or a function without arguments, as a part that fails a check."""

    def note(make):
        SPECIMENS.append(Specimen(suite, check, words, make))
        return make

    return note


class WrongTanh(torch.autograd.Function):
    """tanh with a wrong derivative and without forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.tanh()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * (1 - y)
