"""Lets the documentation read the docstrings as they are written."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Docstrings(griffe.Extension):
    """Griffe knows ``Example:`` under its plural name only, and no roles such as ``:func:``."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring:
            text = re.sub(r"(?m)^(\s*)Example:$", r"\1Examples:", obj.docstring.value)
            obj.docstring.value = re.sub(r":[a-z]+:`[~.]?([\w.]+)`", r"`\1`", text)
