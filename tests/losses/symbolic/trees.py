"""Random expressions, drawn by hypothesis."""

from hypothesis import strategies as st

from metaloss.losses.symbolic import OPERATORS, Expression

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False)
LEAVES = st.sampled_from(["t", "p", 1.0, -1.0]) | NUMBERS
UNARY = sorted(name for name, one in OPERATORS.items() if one.arity == 1)
BINARY = sorted(name for name, one in OPERATORS.items() if one.arity == 2)

# As tuples of tokens, joined in prefix order.
_TOKENS = st.recursive(
    LEAVES.map(lambda leaf: (leaf,)),
    lambda below: (
        st.tuples(st.sampled_from(UNARY), below).map(lambda x: (x[0], *x[1]))
        | st.tuples(st.sampled_from(BINARY), below, below).map(lambda x: (x[0], *x[1], *x[2]))
    ),
    max_leaves=30,
)
EXPRESSIONS = _TOKENS.map(Expression)
