"""Build the documentation site into build/site, offline and strictly: `make docs`.

    python tools/website.py              # build/site/index.html

The builder, Zensical, reads pages from one folder and knows Markdown alone. So this script writes the pages into
build/pages first, with what the builder lacks:

- Pages of the repository outside docs/ get a place on the site, and each notebook becomes a page.
- Links lead to that place. Links to other files lead to the repository, once it has an address; until then their words
  alone are shown.
- Formulas (blocks of code named ``math``) become MathML, so that no script is needed.

Then it checks what the builder does not: every page is in the navigation, and nothing comes from another host.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
SETTINGS = ROOT / "mkdocs.yml"
PLACES = {
    "docs": "",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "results": "records",
    "results/README.md": "records/cards.md",
}
"""The files and folders of the repository that the site shows, and their places on it. Later entries count."""
SHOWN = {".md", ".png", ".svg", ".css", ".js", ".ipynb"}
"""The kinds of files that the site shows."""
CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.M | re.S)
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(\s*(?![a-z]+:)([^)\s#]*)(#[^)\s]*)?\s*\)")
SHIM = "https://unpkg.com/iframe-worker/shim"
"""The only file of another host that the builder refers to. `docs/assets/iframe-worker.js` stands in for it."""
LOADED = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^"'\s>]*""")
"""A file of another host that a page would load."""


def shown_files() -> dict[str, str]:
    """Return the place on the site of each file of the repository that the site shows."""
    found = {}
    for path, place in PLACES.items():
        if (ROOT / path).is_file():
            found[path] = place
            continue
        for file in sorted((ROOT / path).rglob("*")):
            if file.suffix in SHOWN and ".ipynb_checkpoints" not in file.parts:
                found[file.relative_to(ROOT).as_posix()] = (place / file.relative_to(ROOT / path)).as_posix()
    return found


def write_pages(folder: Path) -> None:
    """Write all files of the site into a folder, as the builder reads them."""
    places = shown_files()
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    for path, place in places.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
        if target.suffix == ".md":
            target.write_text(page(target.read_text(encoding="utf-8"), path, places, urls.get("Repository")))
        elif target.suffix == ".ipynb":
            target.with_suffix(".md").write_text(notebook_page(target), encoding="utf-8")


def page(text: str, path: str, places: Mapping[str, str], repository: str | None) -> str:
    """Return a page with the links and formulas of the site.

    Args:
        text: the page.
        path: its path in the repository.
        places: the places of all files on the site.
        repository: the address of the repository. None: it has none yet.
    """

    def lead(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups()
        if not target:
            return match[0]
        file = os.path.normpath(Path(path).parent / target)
        if file in places:
            place = re.sub(r"\.ipynb$", ".md", places[file])  # a notebook has a page
            return f"{picture}[{words}]({os.path.relpath(place, Path(places[path]).parent)}{anchor or ''})"
        if not (ROOT / file).exists():
            return match[0]  # the builder reports it
        return f"[{words}]({repository}/blob/HEAD/{file})" if repository else words

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(lead, part) for part in parts[::2]]
    return re.sub(r"^```math\n(.*?)^```$", formulas, "".join(parts), flags=re.M | re.S)


def formulas(match: re.Match[str]) -> str:
    """Return a block of LaTeX as MathML, a formula for each paragraph."""
    shown = "".join(convert(part, display="block") for part in match[1].split("\n\n"))
    return f"<div class='formulas'>{shown}</div>"


def notebook_page(file: Path) -> str:
    """Return a notebook as Markdown: its texts, its code, and what the code printed."""
    title, *cells = nbformat.read(file, as_version=4).cells
    parts = [title.source, f"[Download this page as a notebook]({file.name})"]
    for cell in cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        printed = "".join(output.get("text", "") for output in cell.outputs).strip()
        if printed:
            parts.append(f"```text\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def in_navigation(entries: Any) -> Iterator[str]:
    """Yield the pages of a navigation."""
    if isinstance(entries, str):
        yield entries
    else:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from in_navigation(entry)


def settings() -> dict[str, Any]:
    """Return the settings of the site."""
    return dict(yaml.safe_load(SETTINGS.read_text(encoding="utf-8")))


def localise(site: Path) -> None:
    """Make the pages load every file from the site itself."""
    for file in site.rglob("*.html"):
        own = os.path.relpath(site / "assets" / "iframe-worker.js", file.parent)
        file.write_text(file.read_text(encoding="utf-8").replace(SHIM, own), encoding="utf-8")


def faults(pages: Path, site: Path) -> list[str]:
    """Return what is wrong with a built site, beyond what the builder reports."""
    there = {file.relative_to(pages).as_posix() for file in pages.rglob("*.md")}
    named = list(in_navigation(settings()["nav"]))
    found = [f"mkdocs.yml: the navigation lacks {name}" for name in sorted(there - set(named))]
    found += [f"mkdocs.yml: the navigation names {name}, which does not exist" for name in named if name not in there]
    for file in sorted(site.rglob("*.html")):
        foreign = LOADED.findall(file.read_text(encoding="utf-8"))
        found += [f"{file.relative_to(site)}: loads {name}" for name in foreign]
    return found


def build(folder: Path = ROOT / "build") -> int:
    """Build the site into ``folder/site``, and return the exit code.

    Args:
        folder: the folder of the pages and of the site.
    """
    pages, site = folder / "pages", folder / "site"
    for old in (pages, site):
        shutil.rmtree(old, ignore_errors=True)
    write_pages(pages)
    # The builder takes folders from its settings alone, relative to their file.
    own = folder / "mkdocs.yml"
    text = SETTINGS.read_text(encoding="utf-8").replace("[src]", f"[{ROOT / 'src'}]")
    own.write_text(text.replace("[tools/", f"[{ROOT}/tools/"), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(own)]
    path = os.pathsep.join([str(ROOT / "tools"), *sys.path])  # the extension of mkdocstrings is a tool too
    done = subprocess.run(command, cwd=folder, check=False, env=os.environ | {"PYTHONPATH": path})
    localise(site)
    for fault in (wrong := faults(pages, site)):
        sys.stderr.write(f"{fault}\n")
    return done.returncode or int(bool(wrong))


if __name__ == "__main__":
    sys.exit(build())
