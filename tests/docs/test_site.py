"""The site is whole: what Zensical's strict build does not look at."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def navigation(entries):
    """Return the pages of the navigation, in order."""
    for entry in entries:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else navigation(value)


def test_the_navigation_has_every_page_once():
    config = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    named = list(navigation(config["nav"]))
    assert len(named) > 15
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)


def names(entries):
    """Return the name of each page in the navigation."""
    found = {}
    for entry in entries:
        for name, value in entry.items():
            found |= {value: name} if isinstance(value, str) else names(value)
    return found


def test_a_page_has_the_same_name_in_the_navigation():
    config = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    found = names(config["nav"])
    # The reference of `metaloss` itself lies beside those of its packages.
    assert found.pop("reference/index.md") == "metaloss"
    titles = {name: (DOCS / name).read_text("utf-8").splitlines()[0] for name in found}
    assert titles == {name: f"# {title}" for name, title in found.items()}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_pictures_and_files_that_a_page_links_to_exist(page):
    text = page.read_text("utf-8")
    links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
    local = [link for link in links if "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert missing == []
    assert set(PICTURE.findall(text)) <= set(local)
