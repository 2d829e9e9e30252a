"""Lets mkdocstrings read our docstrings: one section name, cross references, literal blocks."""

from __future__ import annotations

import re
from typing import Any

import griffe

RULES = (
    (re.compile(r"^( *)Example:$", re.M), r"\1Examples:"),  # rendered as code, not as quotes
    (re.compile(r":(?:attr|class|exc|func|meth|mod):`~?([^`]+)`"), r"`\1`"),
    (re.compile(r"^ *::\n", re.M), ""),  # the indented block that follows is code already
    (re.compile(r"(?<=\S)::$", re.M), ":"),
)


class Docstrings(griffe.Extension):
    """Rewrite every docstring by the rules above before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            for pattern, replacement in RULES:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)
