"""Every link and every picture of the documents leads somewhere: to a file, and to a heading in it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "results").rglob("*.md")])
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)")


def prose(page: Path) -> str:
    """The text of a page without its blocks of code and without code in lines."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda code: "x" * len(code[0]), text)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: dict[str, int] = {}
    names = []
    for heading in re.findall(r"^#+ (.*?)\s*$", text, re.M):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.append(f"{name}-{count}" if count else name)
    return frozenset(names)


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    wrong = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and (file.suffix != ".md" or anchor not in anchors(file))):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    assert broken(page) == []


def test_every_page_of_the_docs_is_linked_from_the_readme():
    linked = {target.partition("#")[0] for target in LINK.findall(prose(ROOT / "README.md"))}
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")}
    assert pages - linked == set()


def test_broken_links_are_found(tmp_path: Path):
    (tmp_path / "there.md").write_text("# A heading, with `code`\n\n# Twice\n\n# Twice\n\n```\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#a-heading-with-code) [b](there.md#twice-1) [c](https://x.org/y) `[d](gone.md)`\n"
        "[two\nlines](gone.md) ![e](gone.png) [f](there.md#no-heading) [g](#nowhere)\n"
    )
    assert broken(page) == ["gone.md", "gone.png", "there.md#no-heading", "#nowhere"]
