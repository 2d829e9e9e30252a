"""Lets mkdocstrings read our docstrings: section names, references, literal blocks, formulas.

Formulas become MathML, which browsers draw by themselves: pages need no script for it.
"""

from __future__ import annotations

import re
from typing import Any

import griffe
from latex2mathml.converter import convert

RULES = (
    (re.compile(r"^( *)Example:$", re.M), r"\1Examples:"),  # rendered as code, not as quotes
    (re.compile(r":(?:attr|class|exc|func|meth|mod):`~?([^`]+)`"), r"`\1`"),
    (re.compile(r"^ *::\n", re.M), ""),  # the indented block that follows is code already
    (re.compile(r"(?<=\S)::$", re.M), ":"),
)
FORMULA = re.compile(r"^( *)\.\. math:: (.+(?:\n\1 +.+)*)$", re.M)


def _mathml(found: re.Match[str]) -> str:
    """Draw a formula, on a line of its own."""
    formula = " ".join(found[2].split())
    # A blank line or an indented one would end the block of HTML.
    return f'{found[1]}<div class="formula">{convert(formula, display="block")}</div>'


class Docstrings(griffe.Extension):
    """Rewrite every docstring by the rules above before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            for pattern, replacement in RULES:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)
            obj.docstring.value = FORMULA.sub(_mathml, obj.docstring.value)
