"""Lets the documentation read docstrings as they are written, and completes their examples."""

from __future__ import annotations

import ast
import doctest
import re
from collections import defaultdict
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import griffe

SECTION = re.compile(r"(?m)^Example:$")
ROLE = re.compile(r":[a-z]+:`[~.]?([\w.]+)`")
PROMPT = re.compile(r"(?m)^( *)>>> ")
OWN_IMPORTS = re.compile(r"(?: *>>> (?:import|from) [^#\n]*\n)+")


class Docstrings(griffe.Extension):
    """Changes what Griffe cannot read, and adds the imports that an example takes from its module.

    Griffe knows ``Example:`` under its plural name only, and no roles such as ``:func:``.
    """

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite the docstrings of a package before they are parsed."""
        for item in walk(pkg):
            if item.docstring is not None:
                text = ROLE.sub(r"`\1`", SECTION.sub("Examples:", item.docstring.value))
                item.docstring.value = with_imports(text, item.module)


def walk(item: griffe.Object) -> Iterator[griffe.Object]:
    """Yield an object and all that is defined in it."""
    yield item
    for member in item.members.values():
        if isinstance(member, griffe.Object):
            yield from walk(member)


def with_imports(text: str, module: griffe.Module) -> str:
    """Return a docstring whose example begins with all imports that it needs."""
    sources = [example.source for example in doctest.DocTestParser().get_examples(text)]
    taken = imports(free_names(sources) & module.members.keys(), module)
    first = PROMPT.search(text)
    if not taken or first is None:
        return text
    own = OWN_IMPORTS.match(text, first.start())
    given = own[0].replace(f"{first[1]}>>> ", "").splitlines() if own else []
    shown = "".join(f"{first[1]}>>> {line}\n" for line in merged([*taken, *given]))
    return text[: first.start()] + shown + text[own.end() if own else first.start() :]


def free_names(sources: list[str]) -> set[str]:
    """Return the names that lines of code use and do not define."""
    used: set[str] = set()
    defined: set[str] = set()
    for node in ast.walk(ast.parse("".join(sources))):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).split(".")[0])
    return used - defined


def imports(names: set[str], module: griffe.Module) -> list[str]:
    """Return lines that import some names of a module, from where users import them."""
    lines = []
    for name in names:
        member = module.members[name]
        path = member.target_path if isinstance(member, griffe.Alias) else member.path
        home, _, last = path.rpartition(".")
        renamed = "" if name == last else f" as {name}"
        source = f"from {public_home(home, last)} " if home else ""
        lines.append(f"{source}import {last}{renamed}")
    return lines


def merged(lines: list[str]) -> list[str]:
    """Return import lines in order, one for each module that names are taken from."""
    whole = {line for line in lines if line.startswith("import ")}
    names: dict[str, set[str]] = defaultdict(set)
    for line in set(lines) - whole:
        home, _, what = line.partition(" import ")
        names[home].update(what.split(", "))
    return sorted(whole) + [
        f"{home} import {', '.join(sorted(names[home]))}" for home in sorted(names)
    ]


def public_home(home: str, name: str) -> str:
    """Return the outermost package that exports the object; its own module, if none does."""
    if home.split(".")[0] != "metaloss":
        return home
    wanted = getattr(import_module(home), name)
    places = [home[: dot.start()] for dot in re.finditer(r"\.", home)]
    for place in places:
        package = import_module(place)
        if name in getattr(package, "__all__", ()) and getattr(package, name) is wanted:
            return place
    return home
