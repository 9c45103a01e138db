"""Shows the options of a class as a table, and signatures with the values that hold."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from enum import EnumMeta
from importlib import import_module
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import griffe

from examples import public_home  # Griffe has loaded it: it is named first in zensical.toml
from metaloss.compose.explain import as_written, option_types

SECTION = re.compile(r"(?m)^(Args|Attributes|Raises|Returns|Reference|Examples?):$")
HEAD = "| option | type | default | what it does |\n|---|---|---|---|\n"


class Options(griffe.Extension):
    """Completes what Griffe reads in the source by what the classes themselves know."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Complete the objects of metaloss; its command line has none that the pages show."""
        for module in modules(pkg) if pkg.name == "metaloss" else ():
            names = [name for name in module.members if not name.startswith("_")]
            for name in names:
                shown = module.members[name]
                if isinstance(shown, griffe.Class):
                    complete_class(shown, getattr(import_module(module.path), name))
                elif isinstance(shown, griffe.Attribute):
                    complete_enum(shown, getattr(import_module(module.path), name))


def modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """Yield a module and all modules in it, but for those of the command line."""
    yield module
    for member in module.members.values():
        if isinstance(member, griffe.Module) and member.name not in ("cli", "__main__"):
            yield from modules(member)


def complete_class(shown: griffe.Class, real: type) -> None:
    """Give options a table instead of a signature, and named tuples a signature."""
    shown.bases = [base for base in shown.bases if is_public(base)]
    init = shown.members.get("__init__")
    if isinstance(init, griffe.Function):
        show_constants(init)
    if dataclasses.is_dataclass(real):
        if any("help" in option.metadata for option in dataclasses.fields(real)):
            insert(shown.docstring, table(real))
            del shown.members["__init__"]
    elif hasattr(real, "_fields"):
        shown.members["__init__"] = signature(shown)
    elif isinstance(real, EnumMeta):
        name_values(shown)


def show_constants(function: griffe.Function) -> None:
    """Show the values of defaults that are names of constants."""
    module = import_module(function.module.path)
    for parameter in function.parameters:
        if str(parameter.default).isupper():
            parameter.default = repr(getattr(module, str(parameter.default)))


def name_values(shown: griffe.Object) -> None:
    """Call the attributes of an Enum its values."""
    if shown.docstring:
        shown.docstring.value = shown.docstring.value.replace("Attributes:", "Attributes: Values:")


def is_public(base: str | griffe.Expr) -> bool:
    """Return whether a base class is exported by a package, or is not one of ours."""
    home, _, name = getattr(base, "canonical_path", str(base)).rpartition(".")
    if not home.startswith("metaloss."):
        return name != "ABC"
    return public_home(home, name) != home


def complete_enum(shown: griffe.Attribute, real: object) -> None:
    """Show the docstring of an Enum that the source makes by a call."""
    if isinstance(real, EnumMeta):
        like = shown.module.docstring
        shown.docstring = griffe.Docstring(
            inspect.cleandoc(real.__doc__ or ""),
            parent=shown,
            parser=like.parser,
            parser_options=like.parser_options,
        )
        name_values(shown)


def signature(shown: griffe.Class) -> griffe.Function:
    """Return the signature of a named tuple: its fields."""
    kind = griffe.ParameterKind.positional_or_keyword
    fields = [
        griffe.Parameter(name, annotation=field.annotation, kind=kind, default=field.value)
        for name, field in shown.members.items()
        if isinstance(field, griffe.Attribute) and field.annotation and not name.startswith("_")
        if "property" not in field.labels
    ]
    own = griffe.Parameter("self", kind=kind)
    return griffe.Function("__init__", parent=shown, parameters=griffe.Parameters(own, *fields))


def insert(docstring: griffe.Docstring, text: str) -> None:
    """Put a text into a docstring, before its first section."""
    section = SECTION.search(docstring.value)
    at = section.start() if section else len(docstring.value)
    before, after = docstring.value[:at].rstrip(), docstring.value[at:]
    docstring.value = f"{before}\n\n{text}\n\n{after}"


def table(options: type) -> str:
    """Return a table of the options, and where the Enums among their types are imported from."""
    words, hints, homes = option_types(options), get_type_hints(options), defaultdict(set)
    defaults = {option.name: default_of(option) for option in dataclasses.fields(options)}
    rows = []
    for option in dataclasses.fields(options):
        name, kind, what = option.name, words[option.name], option.metadata.get("help", "")
        for enum in (hints[name], *get_args(hints[name])):
            if isinstance(enum, EnumMeta):
                kind = kind.replace("one of", f"`{enum.__name__}`:")
                homes[public_home(enum.__module__, enum.__name__)].add(f"`{enum.__name__}`")
        if idle(option, defaults):
            needs = option.metadata["needs"][1]
            key = re.sub(r"^\w+\.|=.*", "", needs)
            what = what if f"({key}=" in what else f"{what} (needs {needs})"
        rows.append(row(name, kind.replace("another value", "see right"), defaults[name], what))
    places = [f"{', '.join(sorted(homes[home]))} in `{home}`" for home in sorted(homes)]
    note = f"\n\nIn Python, the names of values are members of an Enum: {'; '.join(places)}."
    return HEAD + "\n".join(rows) + (note if places else "")


def idle(option: dataclasses.Field[Any], defaults: dict[str, Any]) -> bool:
    """Return whether an option has no effect beside the defaults of the others."""
    has_effect = option.metadata.get("needs", (None, ""))[0]
    try:
        return bool(has_effect) and not has_effect(SimpleNamespace(**defaults))
    except AttributeError:  # the class is a part of others, which have the other option
        return True


def default_of(option: dataclasses.Field[Any]) -> Any:
    """Return the default of an option."""
    made = option.default_factory
    return option.default if made is dataclasses.MISSING else made()


def row(name: str, kind: str, default: Any, what: str) -> str:
    """Return an option's line of the table."""
    written = as_written(default) or '""'
    if dataclasses.is_dataclass(default):
        kind, written = f"`{type(default).__name__}`", changed(default)
    what = re.sub(r",(?=[A-Za-z])", ",<wbr>", what)  # long lists without spaces
    cells = (f"`{name}`", kind, f"`{written}`", what)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def changed(options: Any) -> str:
    """Return options as a call that gives what differs from their defaults."""
    own, plain = vars(options), vars(type(options)())
    given = [f"{name}={own[name]!r}" for name in own if own[name] != plain[name]]
    return f"{type(options).__name__}({', '.join(given)})"
