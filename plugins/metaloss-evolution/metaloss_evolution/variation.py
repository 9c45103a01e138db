"""Random trees, crossover, mutation and selection by DEAP, for metaloss's expressions.

DEAP uses Python's global generator. `drawing` seeds it and restores it afterwards.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from deap import base, gp, tools

from metaloss.losses.symbolic import OPERATORS, Expression
from metaloss.losses.symbolic.expression import Token

# The smaller of two wins with probability PARSIMONY / 2. The value is that of DEAP's example.
PARSIMONY = 1.4
_TERMINALS: dict[str, Token] = {"t": "t", "p": "p", "1": 1.0, "-1": -1.0}


class _Fitness(base.Fitness):  # type: ignore[misc]
    """Lower is better. Not by DEAP's creator, which registers classes globally."""

    weights = (-1.0,)


class _Tree(gp.PrimitiveTree):  # type: ignore[misc]
    """DEAP's tree with its fitness and its index in the population."""

    fitness: Any
    index: int


@contextmanager
def drawing(seed: int, *place: object) -> Iterator[random.Random]:
    """Seed Python's global generator from (seed, place), and restore it at the end.

    Yields:
        A second generator, with another seed.

    Example:
        >>> with drawing(0, "generation", 1) as draws:
        ...     first = random.random(), draws.random()
        >>> with drawing(0, "generation", 1) as draws:
        ...     first == (random.random(), draws.random())
        True
    """
    name = "/".join(str(part) for part in ("metaloss-evolution", seed, *place))
    before = random.getstate()
    # Python hashes a text by SHA-512, which does not depend on its hash seed.
    random.seed(name, version=2)
    try:
        yield random.Random(name + "/own")
    finally:
        random.setstate(before)


def random_expression(lowest: int, highest: int) -> Expression:
    """Draw a tree of a height from ``lowest`` to ``highest``, by ramped half-and-half."""
    return _expression(gp.genHalfAndHalf(_primitives(), lowest, highest))


def crossed(first: Expression, second: Expression) -> tuple[Expression, Expression]:
    """Exchange random subtrees: one-point crossover."""
    one, two = gp.cxOnePoint(_tree(first), _tree(second))
    return _expression(one), _expression(two)


def mutated(expression: Expression) -> Expression:
    """Replace a random subtree by a random tree of height ≤ 2: uniform mutation."""
    grown = functools.partial(gp.genFull, min_=0, max_=2)
    (tree,) = gp.mutUniform(_tree(expression), expr=grown, pset=_primitives())
    return _expression(tree)


def with_both(expression: Expression, draws: random.Random) -> Expression:
    """Replace a random leaf by op(t, p), unless both t and p occur."""
    if "t" in expression.tokens and "p" in expression.tokens:
        return expression
    leaves = [i for i, token in enumerate(expression.tokens) if token not in OPERATORS]
    operators = [name for name, one in OPERATORS.items() if one.arity == 2]
    new = Expression((draws.choice(operators), "t", "p"))
    return expression.replaced(draws.choice(leaves), new)


def selected(
    expressions: Sequence[Expression], fitness: Sequence[float], count: int, size: int
) -> list[Expression]:
    """Draw parents by double tournament: by fitness among ``size``, then by length among two.

    Reference:
        Luke & Panait, "Fighting Bloat with Nonparametric Parsimony Pressure", PPSN 2002.
    """
    trees = []
    for index, (expression, value) in enumerate(zip(expressions, fitness, strict=True)):
        tree = _tree(expression)
        tree.fitness, tree.index = _Fitness((value,)), index
        trees.append(tree)
    chosen = tools.selDoubleTournament(
        trees, count, fitness_size=size, parsimony_size=PARSIMONY, fitness_first=True
    )
    return [expressions[tree.index] for tree in chosen]


@functools.cache
def _primitives() -> Any:
    primitives = gp.PrimitiveSet("loss", 0)
    for name, operator in OPERATORS.items():
        # Only names and arities are used; DEAP evaluates nothing here.
        primitives.addPrimitive(operator.apply, operator.arity, name=name)
    for name, token in _TERMINALS.items():
        primitives.addTerminal(token, name=name)
    return primitives


def _tree(expression: Expression) -> _Tree:
    mapping = _primitives().mapping
    names = {token: name for name, token in _TERMINALS.items()}
    return _Tree([mapping[names.get(token, token)] for token in expression.tokens])


def _expression(nodes: Sequence[Any]) -> Expression:
    return Expression(tuple(_TERMINALS.get(node.name, node.name) for node in nodes))
