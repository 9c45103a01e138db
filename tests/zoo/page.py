"""The page of the documentation: what each engine makes of each kind."""

from __future__ import annotations

from .every import GROUPS
from .kind import Kind, Truth

HEAD = """\
# Models

A loss can be learned with any `nn.Module`. This page says for {count} kinds of models whether each
engine's meta-gradient is exact. Every row is a tiny model in the tests (`tests/zoo/`), in double
precision, and the tests compare this page with the code.

| word | what was tested |
|---|---|
| exact | the meta-gradient is that of torch's own graph through the steps, to 1e-9 |
| close | `finite_difference` with `epsilon=1e-6`: to 1e-5; in single precision expect 3 digits |
| refused | one line says why, and names engines that were tried and work, if there are any |

A test of each kind also compares weights and buffers after every step with those of `torch.optim`
and the model's own forward pass, both when the loss moves and when it does not.

Marks:

- ¹ The model draws random numbers. All engines see the same draws, which are not torch's. The
  meta-gradient is compared with differences of the losses that a `Learner` reports.
- ² `backward` is not the derivative of `forward` (straight-through, `detach`, `no_grad`). The
  meta-gradient uses what `backward` returns, as training does.
- ³ PyTorch has no forward mode for it, or a wrong one. `mixed` then takes a second reverse pass,
  which is exact as well. How long this takes depends on the model and on the unroll. On a GRU
  (64 rows of 20 steps, 64 units, one CPU core, median of 12 in turns) the meta-gradient takes 28 ms
  instead of 24 ms through one inner step, and 118 ms instead of 147 ms through four.
- ⁴ The accuracy of differences is not tested: the model computes in lower precision inside, or it
  is not continuous.
- ⁵ In half precision exact means to 5 %: torch's own unroll in the same type is as far from one in
  double precision. `finite_difference` takes two reverse passes, since such weights have too few
  digits for differences.

In the last column "same" means that traced steps were compared with eager ones. Where it is empty
they were not compared; they are the same there too, or refused in one line.
"""
TABLE = """
## {title}

| model | `mixed` | `torchopt`, `higher` | `finite_difference` | `compile=trace` |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page's text."""
    parts = [HEAD.format(count=sum(len(group.kinds) for group in GROUPS))]
    for group in GROUPS:
        parts.append(TABLE.format(title=group.title))
        parts += [_row(kind) for kind in group.kinds]
    return "".join(parts)


def _row(kind: Kind) -> str:
    cells = [
        _cell(kind, "mixed", "exact"),
        _cell(kind, "torchopt", "exact"),
        _cell(kind, "finite_difference", "close" if kind.smooth or kind.half else "close⁴"),
    ]
    traced = "same" if kind.traces else ""
    return f"| {_named(kind)} | {' | '.join(cells)} | {traced} |\n"


def _named(kind: Kind) -> str:
    marks = [
        "¹" if kind.truth in (Truth.own, Truth.agreed) else "",
        {"backward": "²", "reverse": "³"}.get(kind.expected.name, ""),
        "⁵" if kind.half else "",
    ]
    return " ".join([kind.name.replace("|", "/"), *filter(None, marks)])


def _cell(kind: Kind, engine: str, right: str) -> str:
    one, two = (
        right if kind.expects(steps).words()[engine] == "right" else "refused" for steps in (1, 2)
    )
    return one if one == two else f"{one}; several steps: {two}"
