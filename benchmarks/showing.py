"""Show what was measured: as a Markdown table, as JSON, and as bars in an SVG.

What was found is a mapping of groups (one table each) to names (a line each) to columns, whose
cells are median and range. A column that isn't a ratio says its unit after a comma: ``"time, ms"``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from pathlib import Path

import torch
from timing import Spread

from peft_dense.errors import UnknownNameError

__all__ = ["Found", "add_outputs", "conditions", "show"]

Cells = dict[str, Spread]
Found = dict[str, dict[str, Cells]]

UNITS = ("ms", "MiB")
ACCENT = "#00a08a"  # as in docs/make_drawings.py
CHARACTER, BOLD, BARS, LINE = 7, 9, 360, 20  # widths of letters and of bars, height of a line


def add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    parser.add_argument("--plot", type=_svg, help="also draw it as bars, to this SVG file")
    parser.add_argument("--draw", nargs="+", metavar="COLUMN", help="only these columns of it")


def _svg(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} isn't a name that ends in .svg")
    return Path(text)


def conditions(**more: object) -> str:
    """Say on what machine, with what and when; ``more`` comes first."""
    where = f"{os.cpu_count()} {platform.machine()} CPU cores"
    if torch.cuda.is_available():
        where += f" and {torch.cuda.get_device_name()}"
    given = [f"{key} {value}" for key, value in more.items()]
    return ", ".join([*given, where, f"PyTorch {torch.__version__}", str(date.today())])


def show(
    found: Found, said: str, args: argparse.Namespace, notes: Sequence[str] = (), head: str = ""
) -> None:
    """Print tables, notes and conditions; write the files that were asked for."""
    for group, lines in found.items():
        print(f"{table(lines, group or head)}\n")
    for note in notes:
        print(f"{note}\n")
    print(said)
    if args.json:
        whole = {"conditions": said, "notes": list(notes), "found": found}
        args.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if args.plot:
        args.plot.write_text(bars(found, args.draw), encoding="utf-8")


def columns_of(lines: Mapping[str, Cells]) -> list[str]:
    """Give every column that a line has, in the order of their first lines."""
    return list(dict.fromkeys(column for cells in lines.values() for column in cells))


def table(lines: Mapping[str, Cells], head: str) -> str:
    """Lay out one group, a line per name; a cell is the median and, if it has one, the range."""
    columns = columns_of(lines)
    rows = [f"| {head} | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for name, cells in lines.items():
        texts = [_cell(cells[column]) if column in cells else "" for column in columns]
        rows.append(f"| {name} | {' | '.join(texts)} |")
    return "\n".join(rows)


def _cell(value: Spread) -> str:
    middle, least, most = (_number(value[key]) for key in ("median", "least", "most"))
    return middle if least == most else f"{middle} ({least} to {most})"


def _number(value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def bars(found: Found, only: Sequence[str] | None = None) -> str:
    """Draw a panel per group and column: bars to the medians, thin lines over ranges.

    Raises:
        UnknownNameError: If a column of ``only`` isn't there.
    """
    columns = dict.fromkeys(column for lines in found.values() for column in columns_of(lines))
    for column in only or ():
        if column not in columns:
            raise UnknownNameError.of("column", column, columns)
    panels: dict[str, tuple[str, Cells]] = {}
    for group, lines in found.items():
        for column in columns_of(lines):
            there = {name: cells[column] for name, cells in lines.items() if column in cells}
            if not only or column in only:
                panels[": ".join(filter(None, (group, column)))] = (column, there)
    left = CHARACTER * max(len(name) for _, there in panels.values() for name in there) + 10
    width = max(left + BARS + 60, *(BOLD * len(title) for title in panels))
    parts, y = [], 0
    for title, (column, there) in panels.items():
        longest = max(value["most"] for value in there.values()) or 1.0
        parts.append(_text(0, y + LINE, title, bold=True))
        y += LINE + 6
        top = y
        for name, value in there.items():
            parts.append(_bar(left, y, name, value, BARS / longest))
            y += LINE
        if not column.endswith(UNITS) and longest > 1:  # a ratio: mark what it is of
            x = left + BARS / longest
            parts.append(
                f'<path d="M{x:.1f} {top} V{y}" stroke="currentColor" stroke-dasharray="3 3"/>'
            )
        y += 12
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="drawing" viewBox="0 0 {width} {y}" '
        f'font-family="system-ui, sans-serif" font-size="13">{"".join(parts)}</svg>\n'
    )


def _bar(left: float, y: float, name: str, value: Spread, scale: float) -> str:
    x = {key: left + scale * number for key, number in value.items()}
    middle = y + LINE / 2
    return (
        f"{_text(0, y + 15, name)}"
        f'<rect x="{left}" y="{y + 3}" width="{x["median"] - left:.1f}" height="{LINE - 6}" '
        f'fill="{ACCENT}" fill-opacity="0.4"/>'
        f'<path d="M{x["least"]:.1f} {middle} H{x["most"]:.1f}" stroke="currentColor"/>'
        f"{_text(x['most'] + 6, y + 15, _number(value['median']))}"
    )


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    look = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:g}" fill="currentColor"{look}>{escape(text)}</text>'
