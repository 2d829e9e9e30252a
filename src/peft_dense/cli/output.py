"""How the command line prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["one_line", "say", "table"]


def say(text: object) -> None:
    """Write one line to the standard error."""
    sys.stderr.write(f"{one_line(text)}\n")


def one_line(text: object) -> str:
    """Join the lines and words of a text by single blanks."""
    return " ".join(str(text).split())


def table(rows: Sequence[Sequence[str]], align: str) -> str:
    """Lay out rows in columns; a row of two cells in a wider table is a name and a remark."""
    full = [row for row in rows if len(row) == len(align)]
    name = max(len(row[0]) for row in rows)
    widths = [name, *(max(len(row[i]) for row in full) for i in range(1, len(align)))]
    lines = []
    for row in rows:
        if row not in full:
            lines.append(f"{row[0]:<{name}}  {row[1]}")
            continue
        cells = [f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
