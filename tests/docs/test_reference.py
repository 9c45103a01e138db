"""The reference has every public name, and says what a reader needs to use it."""

import builtins
import doctest
import re
import tomllib
from enum import EnumMeta
from importlib import import_module
from pathlib import Path

import griffe
import pytest

import metaloss
from metaloss import errors

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "reference").glob("*.md"))
SHOWN = re.compile(r"(?m)^::: (\S+)(?:\n    options: \{(.*)\})?$")


@pytest.fixture(scope="module")
def package():
    """Return what Griffe reads of metaloss for the pages, with the hooks."""
    config = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))
    options = config["project"]["plugins"]["mkdocstrings"]["handlers"]["python"]["options"]
    hooks = [name if name == "dataclasses" else str(ROOT / name) for name in options["extensions"]]
    extensions = griffe.load_extensions(*hooks)
    loader = griffe.GriffeLoader(search_paths=[str(ROOT)], extensions=extensions)
    return loader.load("metaloss")


def resolved(package, path):
    """Return the object of a path below metaloss."""
    found = package
    for name in path.split(".")[1:]:
        found = found.members[name]
        found = found.final_target if found.is_alias else found
    return found


def objects(item):
    """Yield an object and its members that a page shows."""
    yield item
    if item.is_attribute or item.is_function:
        return
    exported = {name.split(".")[-1] for name in map(str, item.exports or ())}
    for name, member in item.members.items():
        if name.startswith("_") or (member.is_alias and name not in exported):
            continue
        member = member.final_target if member.is_alias else member
        if member.docstring and not member.is_module:
            yield from objects(member)


def on_page(package, page):
    """Yield the objects that a page shows."""
    for path, options in SHOWN.findall(page.read_text("utf-8")):
        item = resolved(package, path)
        named = re.search(r"members: \[(.*?)\]", options)
        if named:
            for name in named[1].split(", "):
                yield from objects(resolved(package, f"{path}.{name}"))
        else:
            yield from objects(item)


def real(item):
    """Return the object itself of what Griffe has read."""
    return getattr(import_module(item.module.path), item.name)


def test_every_public_name_and_error_is_on_a_page(package):
    shown = {item.path for page in PAGES for item in on_page(package, page)}
    names = {resolved(package, f"metaloss.{name}").path for name in metaloss.__all__}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    names |= {
        f"metaloss.errors.{kind.__name__}" for kind in kinds if kind.__module__ == errors.__name__
    }
    names |= {
        resolved(package, f"metaloss.contracts.{name}").path for name in metaloss.contracts.__all__
    }
    assert len(names) > 50
    assert names - shown == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_import_what_they_use(package, page):
    import examples  # the hook, as Griffe has loaded it

    checked = 0
    for item in on_page(package, page):
        text = item.docstring.value if item.docstring else ""
        lines = [example.source for example in doctest.DocTestParser().get_examples(text)]
        assert examples.free_names(lines) - vars(builtins).keys() == set(), item.path
        for line in lines:
            if line.startswith(("import ", "from ")):
                exec(line, {})
                checked += 1
    assert checked > (0 if page.stem == "contracts" else 3)


def test_options_have_defaults_and_help(package):
    rows = []
    for page in PAGES:
        for item in on_page(package, page):
            text = item.docstring.value if item.docstring else ""
            rows += re.findall(r"(?m)^\| `(\w+)` \| (.*) \| `(.*)` \| (.*) \|$", text)
    assert len(rows) > 300
    assert [row for row in rows if not all(cell.strip() for cell in row)] == []
    assert [row for row in rows if "lambda" in row[2] or "shared(" in row[2]] == []
    assert (
        "unroll",
        "a whole number",
        "1",
        "inner steps that a meta-gradient differentiates through",
    ) in rows


def test_enums_say_what_each_value_means(package):
    enums = {
        item.path: (item, real(item))
        for page in PAGES
        for item in on_page(package, page)
        if item.module.path.startswith("metaloss") and not item.is_module
        if item.parent.is_module and isinstance(real(item), EnumMeta)
    }
    assert len(enums) > 8
    for path, (item, enum) in enums.items():
        sections = item.docstring.parse("google")
        (values,) = (
            part for part in sections if part.kind is griffe.DocstringSectionKind.attributes
        )
        assert values.title == "Values:", path
        assert [value.name for value in values.value] == [str(one.value) for one in enum], path


def test_no_heading_has_the_name_of_a_type():
    """The types in signatures are links to headings of their name, if there are any."""
    types = {name for name, value in vars(builtins).items() if isinstance(value, type)}
    for page in (ROOT / "docs").rglob("*.md"):
        headings = re.findall(r"(?m)^#+ `?(\w+)`?$", page.read_text("utf-8"))
        assert types & set(headings) == set(), page.name


def test_an_option_says_once_what_it_needs(package):
    text = resolved(package, "metaloss.SGD").docstring.value
    assert "| steps from one drop to the next (schedule=step) |" in text
    assert "| dampening of the momentum (needs inner.momentum) |" in text
    assert "| how the rate depends on the step |" in text
