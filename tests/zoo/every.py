"""All kinds by name."""

from . import (
    activations,
    derivatives,
    draws,
    functions,
    hub,
    networks,
    norms,
    places,
    sequences,
    structure,
)

GROUPS = [
    module.GROUP
    for module in (
        places, norms, activations, sequences, structure, derivatives, draws, functions, networks, hub
    )
]  # fmt: skip
KINDS = {kind.name: kind for group in GROUPS for kind in group.kinds}
assert len(KINDS) == sum(len(group.kinds) for group in GROUPS), "two kinds of one name"
