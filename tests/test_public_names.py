"""What `metaloss` itself exports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import metaloss


def test_every_public_name_is_there_and_nothing_else_is_listed():
    assert set(metaloss.__all__) == set(metaloss._HOMES)
    for name in metaloss.__all__:
        assert getattr(metaloss, name).__name__ == name
        assert name in dir(metaloss)


def test_type_checkers_see_the_same_names_from_the_same_places():
    tree = ast.parse(Path(metaloss.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {name.name: line.module for line in block.body for name in line.names}
    assert seen == metaloss._HOMES


def test_importing_metaloss_does_not_import_torch():
    code = "import sys, metaloss; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_name_that_moved_works_with_a_notice():
    from metaloss.allocator import keep_freed_memory

    with pytest.warns(FutureWarning, match="is now metaloss.allocator.keep_freed_memory"):
        assert metaloss.keep_freed_memory is keep_freed_memory
    with pytest.raises(AttributeError, match="no attribute 'keep_memory'"):
        _ = metaloss.keep_memory
