"""A contact sheet: one image per row, with what was found of each task."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from peft_dense.predicting.painting import (
    FAINT,
    INK,
    draw_legend,
    legend,
    legend_height,
    pixels_by_class,
)
from peft_dense.predicting.prediction import Prediction
from peft_dense.tasks import Task

__all__ = ["ContactSheet"]

_GAP, _LINE, _TEXT, _SIDE = 8, 18, 12, 96

_Row = tuple[str, list[Image.Image]]


class ContactSheet:
    """Collect any number of predictions, and draw a few, spread evenly over them.

    At most twice as many as are drawn are held, as small pictures.

    Args:
        rows: How many are drawn.
        tile: Longer side of each picture in pixels.
    """

    def __init__(self, rows: int = 20, tile: int = 200) -> None:
        self.rows, self.tile = rows, tile
        self._kept: list[_Row] = []
        self._tasks: dict[str, Task] = {}
        self._counts: dict[str, Tensor] = {}
        self._every, self._number = 1, 0

    def add(self, found: Prediction) -> None:
        """Take a prediction."""
        if self._number % self._every == 0:
            self._tasks = dict(found.tasks)
            pictures = [found.photo(self.tile)]
            pictures += [found.map(name, self.tile) for name in found.tasks]
            self._kept.append((f"{found.name}   {found.size[1]} x {found.size[0]}", pictures))
            for name, task in found.tasks.items():
                counts = pixels_by_class(task, found.labels[name])
                self._counts[name] = self._counts.get(name, 0) + counts
            if len(self._kept) > 2 * self.rows:
                self._kept, self._every = self._kept[::2], 2 * self._every
        self._number += 1

    def draw(self) -> Image.Image | None:
        """Draw the sheet; None if there was no prediction."""
        if not self._kept:
            return None
        number = min(self.rows, len(self._kept))
        rows = [self._kept[index * len(self._kept) // number] for index in range(number)]
        cell = max(_SIDE, *(each.width for _, row in rows for each in row))
        block = (1 + len(self._tasks)) * (cell + _GAP)
        steps = [max(each.height for each in row) + _LINE + _GAP for _, row in rows]
        columns = max(1, min(len(rows), round(math.sqrt(1.3 * sum(steps) / block))))
        deep = -(-len(rows) // columns)
        columns = -(-len(rows) // deep)
        tall = max(sum(steps[start : start + deep]) for start in range(0, len(rows), deep))
        body = Image.new("RGB", (columns * block + _GAP, _LINE + _GAP + tall), "white")
        for index, row in enumerate(rows):
            across = index // deep
            above = sum(steps[across * deep : index])
            self._draw_row(body, row, _GAP + across * block, _LINE + _GAP + above, cell)
        self._draw_titles(body, columns, block, cell)
        return self._with_legends(body)

    def _draw_row(self, sheet: Image.Image, row: _Row, x: int, y: int, cell: int) -> None:
        note, pictures = row
        for column, each in enumerate(pictures):
            sheet.paste(each, (x + column * (cell + _GAP), y))
        below = y + max(each.height for each in pictures)
        font = ImageFont.load_default(_TEXT)
        ImageDraw.Draw(sheet).text((x, below + 1), note, FAINT, font)

    def _draw_titles(self, sheet: Image.Image, columns: int, block: int, cell: int) -> None:
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
        for across in range(columns):
            for column, title in enumerate(("image", *self._tasks)):
                x = _GAP + across * block + column * (cell + _GAP)
                pen.text((x, _GAP // 2), title, INK, font)

    def _with_legends(self, body: Image.Image) -> Image.Image:
        """Add the legends below; of classes, those in the images that were held."""
        entries = {name: legend(each, self._counts[name]) for name, each in self._tasks.items()}
        wide = body.width - _SIDE - 2 * _GAP
        steps = [legend_height(len(each), wide) + _GAP for each in entries.values()]
        sheet = Image.new("RGB", (body.width, body.height + sum(steps) + _GAP), "white")
        sheet.paste(body, (0, 0))
        pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
        y = body.height
        for (name, each), step in zip(entries.items(), steps, strict=True):
            pen.text((_GAP, y), name, INK, font)
            draw_legend(pen, each, (_GAP + _SIDE, y), wide)
            y += step
        return sheet
