"""The one part of the metadata that pyproject.toml cannot say: the README as a package index shows it.

An index knows no files of the repository. Once `Repository` stands among the URLs of pyproject.toml, links and pictures
lead there. Without it they would lead nowhere, so their text alone is kept.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def readme(text: str, repository: str | None) -> str:
    """Return a README without links and pictures that are relative to the repository.

    Args:
        text: the README.
        repository: the address of the repository. None: it has none yet.
    """

    def link(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if repository is None:
            return f"*{words}*" if picture else words
        return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/HEAD/{target})"

    parts = re.split(r"(^```.*?^```\n)", text, flags=re.M | re.S)  # code stays as it is
    parts[::2] = [re.sub(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)", link, part) for part in parts[::2]]
    return "".join(parts)


if __name__ == "__main__":
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    shown = readme((ROOT / "README.md").read_text(encoding="utf-8"), urls.get("Repository"))
    setup(long_description=shown, long_description_content_type="text/markdown")
