"""A picture of samples: each row an image and its labels, with a legend of the colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from peft_dense.data.checking.tally import Tally
from peft_dense.data.labels import Item
from peft_dense.tasks.depth import Depth
from peft_dense.tasks.drawing import IGNORED_COLOUR, palette, ramp
from peft_dense.tasks.segmentation import Segmentation

__all__ = ["draw_samples"]

TILE = 240
"""Longer side of every drawn image, in pixels."""
_GAP, _LINE, _TEXT, _SWATCH, _ENTRY = 10, 20, 13, 12, 150
_INK, _FAINT = (20, 20, 20), (110, 110, 110)


def draw_samples(
    samples: Sequence[tuple[str, Item]], tallies: Mapping[str, Tally], path: str | Path
) -> tuple[int, int]:
    """Paint samples to a PNG, one per row: the image, then its label for every task.

    Ignored pixels are cream, as `Task.draw_target` paints them. Under the rows stand the colours
    and what they mean, of classes those that the samples show.

    Args:
        samples: Split and item of each sample; a task may be missing in an item.
        tallies: One per task, in the order of the columns.
        path: File to write.

    Returns:
        Width and height of the picture.
    """
    heights = [_fit(item["image"])[1] for _, item in samples]
    legends = {task: _legend(task, tally, samples) for task, tally in tallies.items()}
    legends["all"] = [(_colour(IGNORED_COLOUR), "ignored")]
    step = max(_ENTRY, *(_fit(item["image"])[0] for _, item in samples)) + _GAP
    width = max((1 + len(tallies)) * step + _GAP, 4 * _ENTRY + 2 * _GAP)
    across = (width - 2 * _GAP) // _ENTRY - 1
    rows_of = {task: max(-(-len(entries) // across), 1) for task, entries in legends.items()}
    height = _GAP + _LINE + sum(tall + _LINE + _GAP for tall in heights)
    height += sum(rows_of.values()) * _LINE + _GAP

    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT)
    for column, title in enumerate(("image", *tallies)):
        pen.text((_GAP + column * step, _GAP), title, _INK, font)
    y = _GAP + _LINE
    for (split, item), tall in zip(samples, heights, strict=True):
        size = item["meta"]["size"]
        note = f"{split}  {item['meta']['id']}  {size[1]} x {size[0]}"
        pen.text((_GAP, y + tall + 2), note, _FAINT, font)
        for column, task in enumerate(("image", *tallies)):
            place = (_GAP + column * step, y)
            if task in item:
                sheet.paste(_tile(item, task, tallies), place)
            else:
                pen.text(place, "no label", _FAINT, font)
        y += tall + _LINE + _GAP
    for task, entries in legends.items():
        pen.text((_GAP, y), task, _INK, font)
        for index, (colour, name) in enumerate(entries):
            x, row = _GAP + (1 + index % across) * _ENTRY, index // across
            _swatch(pen, x, y + row * _LINE, colour, name, font)
        y += rows_of[task] * _LINE
    sheet.save(path, format="PNG")
    return sheet.size


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_Colour = tuple[int, int, int]


def _swatch(
    pen: ImageDraw.ImageDraw, x: int, y: int, colour: _Colour, name: str, font: _Font
) -> None:
    pen.rectangle((x, y + 2, x + _SWATCH, y + 2 + _SWATCH), colour, outline=_FAINT)
    while name and pen.textlength(name, font) > _ENTRY - _SWATCH - 14:
        name = f"{name.rstrip('.')[:-1]}..."
    pen.text((x + _SWATCH + 6, y), name, _INK, font)


def _legend(
    task: str, tally: Tally, samples: Sequence[tuple[str, Item]]
) -> list[tuple[_Colour, str]]:
    """Colour and name of each class that the samples show, or of some values."""
    if tally.kind.name == "normals":
        return [
            ((255, 128, 128), "right"),
            ((128, 255, 128), "up"),
            ((128, 128, 255), "to the viewer"),
        ]
    if isinstance(tally.task, Depth):
        near, far = ramp(torch.tensor([[0.0, 1.0]]))[0]
        return [(_colour(near), "0 m"), (_colour(far), f"{tally.task.far:g} m and beyond")]
    if tally.kind.marks:
        return [((0, 0, 0), tally.name(0)), ((255, 255, 255), tally.name(1))]
    labels = [item[task] for _, item in samples if task in item]
    seen = {index for label in labels for index in label.unique().tolist()}
    colours = palette(max(256, tally.task.channels))
    shown = sorted(seen - {tally.kind.ignore})
    return [(_colour(colours[index]), tally.name(index)) for index in shown]


def _tile(item: Item, task: str, tallies: Mapping[str, Tally]) -> Image.Image:
    """Paint one entry of an item and fit it to a tile."""
    size = _fit(item["image"])
    if task == "image":
        shown = item["image"][[0, 1, 2] if len(item["image"]) >= 3 else [0, 0, 0]]
        pixels = (255 * shown.clamp(0, 1)).round().to(torch.uint8).movedim(0, -1)
        return Image.fromarray(pixels.contiguous().numpy()).resize(size, Image.Resampling.BICUBIC)
    how = tallies[task].task
    painted = Image.fromarray(how.draw_target(item[task]).contiguous().numpy())
    # Classes keep their colours; in what shrinks, thin edges fade, where the nearest would break.
    exact = isinstance(how, Segmentation) or size[0] >= painted.width
    return painted.resize(size, Image.Resampling.NEAREST if exact else Image.Resampling.BOX)


def _fit(image: Tensor) -> tuple[int, int]:
    """Width and height of an image whose longer side is that of a tile."""
    height, width = image.shape[-2:]
    scale = TILE / max(height, width)
    return max(round(scale * width), 1), max(round(scale * height), 1)


def _colour(colour: Tensor) -> _Colour:
    red, green, blue = colour.tolist()
    return red, green, blue
