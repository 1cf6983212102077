"""An extension of mkdocstrings: docstrings become Markdown, and the fields of a class become one list."""

from __future__ import annotations

import re
from typing import Any

import griffe

import reference

FORMULAS = re.compile(r"The module's docstring (states|explains)[^.]*\.")
"""A sentence that leads to the docstring of the module, in which the formulas stand."""


def example(match: re.Match[str]) -> str:
    """Return an example as a block of code; with its prompts if it shows what comes out."""
    lines = [re.sub(r" *# doctest.*", "", line) for line in match[0].splitlines()]
    if all(line.startswith((">>>", "...")) for line in lines):
        return "\n".join(["```python", *(line[4:] for line in lines), "```\n"])
    return "\n".join(["```pycon", *lines, "```\n"])


def plain(text: str) -> str:
    """Return a docstring as Markdown."""
    text = re.sub(r"::$", ":", reference.markdown(text), flags=re.M)
    return re.sub(r"^>>> .*\n?(^\S.*\n?)*", example, text, flags=re.M)


class PlainDocstrings(griffe.Extension):
    """Turn docstrings into Markdown, and move the docstrings of fields into those of their classes."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turn the roles, quotes and examples of a docstring into Markdown."""
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Show the formulas of the module, and list the public fields instead of giving each a heading."""
        text, mark, raised = (cls.docstring.value if cls.docstring else "").partition("\n\nRaises:")
        if cls.module.docstring:
            formulas = plain(cls.module.docstring.value).partition("\n\n")[2]
            text = FORMULAS.sub(lambda _: f"\n\n{formulas}", text)
        lines = []
        for name, field in list(cls.members.items()):
            if not isinstance(field, griffe.Attribute) or not field.docstring or name.startswith("_"):
                continue
            # A call says how the code makes a default, not what it is.
            default = "" if field.value is None or "(" in str(field.value) else f" Default: `{field.value}`."
            told = " ".join(plain(field.docstring.value).split())
            lines.append(f"    {name} ({field.annotation or 'value'}): {told}{default}")
            del cls.members[name]
        if lines:
            text = "\n".join([text, "", "Attributes:", *lines])
        if text:
            cls.docstring = griffe.Docstring(text + mark + raised, parent=cls, parser=griffe.Parser.google)
