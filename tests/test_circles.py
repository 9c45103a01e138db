"""No two files import each other, not even for the sake of their annotations alone."""

import grimp
import pytest
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of files that reach each other."""
    names = sorted(imports)
    place = {name: i for i, name in enumerate(names)}
    pairs = [(place[a], place[b]) for a in names for b in imports[a]]
    rows, columns = zip(*pairs, strict=True)
    graph = coo_matrix(([1] * len(pairs), (rows, columns)), shape=(len(names), len(names)))
    _, groups = connected_components(graph, directed=True, connection="strong")
    members: dict[int, set[str]] = {}
    for name, group in zip(names, groups, strict=True):
        members.setdefault(int(group), set()).add(name)
    return [found for found in members.values() if len(found) > 1]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    graph = grimp.build_graph("metaloss", exclude_type_checking_imports=False, cache_dir=None)
    # The package itself names its public parts, which it imports when they are asked for.
    names = graph.modules - {"metaloss"}
    return {name: graph.find_modules_directly_imported_by(name) - {"metaloss"} for name in names}


def test_no_files_import_each_other(imports):
    assert len(imports) > 300
    assert circles(imports) == []


def test_a_circle_is_found(imports):
    low, high = "metaloss.core.training.saved", "metaloss.core.training.trainer"
    assert low in imports[high]
    assert circles({**imports, low: imports[low] | {high}}) == [{low, high}]
