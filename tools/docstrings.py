"""An extension of mkdocstrings: docstrings become Markdown as on the reference pages."""

from __future__ import annotations

from typing import Any

import griffe

import reference


class PlainDocstrings(griffe.Extension):
    """Turn the roles and quotes of docstrings into Markdown."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turn the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = reference.markdown(obj.docstring.value)
