"""Keeps a number and its percent sign on one line: "20 %"."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

NO_BREAK_SPACE = "\u00a0"


class _Percent(Treeprocessor):
    def run(self, root: Element) -> None:
        for element in root.iter():
            if element.text and element.tag not in {"code", "pre"}:
                element.text = joined(element.text)
            if element.tail:
                element.tail = joined(element.tail)


def joined(text: str) -> str:
    """Return a text in which no line ends between a number and its percent sign."""
    return re.sub(r"(?<=\d) (?=%)", NO_BREAK_SPACE, text)


class Spaces(Extension):
    """The extension of Python-Markdown that `zensical.toml` names."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Look at every text, after it was parsed and before the table of contents is made."""
        md.treeprocessors.register(_Percent(md), "percent", 10)


def makeExtension(**options: object) -> Spaces:
    """Return the extension, as Markdown asks for it."""
    return Spaces(**options)
