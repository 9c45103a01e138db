"""All kinds by name."""

from .kinds import (
    activations,
    calls,
    derivatives,
    draws,
    functions,
    half,
    hidden,
    hub,
    memory,
    networks,
    norms,
    places,
    sequences,
    state,
    structure,
)

GROUPS = [
    module.GROUP
    for module in (
        places,
        norms,
        activations,
        sequences,
        structure,
        calls,
        state,
        memory,
        derivatives,
        hidden,
        draws,
        functions,
        half,
        networks,
        hub,
    )
]
KINDS = {kind.name: kind for group in GROUPS for kind in group.kinds}
assert len(KINDS) == sum(len(group.kinds) for group in GROUPS), "two kinds of one name"
