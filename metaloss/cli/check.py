"""``metaloss check``: contract checks of a registered part."""

from __future__ import annotations

from typing import Annotated

import typer

from metaloss.cli import plugin_files
from metaloss.cli.options import DONE, FAILED, Plugins


def check(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The part's group, such as loss.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The part's name, such as mlp.")],
    plugin: Plugins = None,
) -> int:
    """Check a registered part against its contract.

    The exit status is 1 if a check fails.
    """
    plugin_files.load(plugin)
    from metaloss.testing import check_part

    results = check_part(group, name)
    for result in results:
        print(f"{'passed' if result.passed else 'FAILED'}  {result.name}")
        if not result.passed:
            print(f"        {result.message}")
    passed = sum(result.passed for result in results)
    print(f"{group}={name}: {passed} of {len(results)} checks passed")
    return DONE if passed == len(results) else FAILED
