"""Label maps as pictures: alone, over the image, in a row with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from peft_dense.tasks import Task
from peft_dense.tasks.depth import Depth
from peft_dense.tasks.drawing import palette, ramp
from peft_dense.tasks.segmentation import Segmentation

__all__ = [
    "FAINT",
    "INK",
    "Colour",
    "Tile",
    "draw_legend",
    "legend",
    "legend_height",
    "over",
    "painted",
    "pixels_by_class",
    "shown",
    "span_of",
    "titled_tiles",
]

Colour = tuple[int, int, int]
Tile = tuple[str, Image.Image, Task | None, Tensor | None]
"""Title, picture, and the task and label map that it shows."""

INK, FAINT = (20, 20, 20), (110, 110, 110)

_GAP, _TITLE, _LINE, _TEXT, _ENTRY = 8, 20, 16, 12, 118
_WIDE = 2000  # of a row of tiles, in pixels
_CLEAR = ("background", "none", "null", "void", "unlabelled", "unlabeled", "other", "ignore")
_MARK = torch.tensor([255.0, 60.0, 40.0])  # what is marked, over an image


def shown(image: Tensor, longest: int | None = None) -> Image.Image:
    """Give an image as a picture: its first three channels, or its first alone.

    Shape:
        ``(C, H, W)``, uint8 or float32 in 0..1
    """
    three = image[[0, 1, 2] if len(image) >= 3 else [0, 0, 0]]
    pixels = three if three.dtype == torch.uint8 else _bytes(255 * three)
    return _shrunk(Image.fromarray(_array(pixels.movedim(0, -1))), longest, smooth=True)


def painted(task: Task, label: Tensor, longest: int | None = None) -> Image.Image:
    """Paint a label map in the colours of its task.

    Classes keep their colours where the picture shrinks; other maps are averaged, so that thin
    edges fade and don't break. Depths fill the colours from the nearest to the farthest of the
    image (`span_of`), since a room would be one colour where a street is not.
    """
    if isinstance(task, Segmentation):
        label = _sampled(label, longest)
    elif isinstance(task, Depth):
        near, far = span_of(label)
        label = task.far * (label - near) / max(far - near, 1e-6)
    pixels = Image.fromarray(_array(task.paint(label.long() if _counted(label) else label)))
    return _shrunk(pixels, longest)


def over(
    image: Tensor, task: Task, label: Tensor, opacity: float, longest: int | None = None
) -> Image.Image:
    """Paint a label map over its image; background and what isn't marked stay clear.

    Args:
        image: ``(C, H, W)``.
        task: The task.
        label: Its label map, of the image's size.
        opacity: From 0, only the image, to 1.
        longest: The longer side of the picture, if it is longer.
    """
    photo = torch.from_numpy(np.array(shown(image, longest))).float()
    colour = torch.from_numpy(np.array(painted(task, label, longest))).float()
    share = torch.full((*photo.shape[:2], 1), opacity)
    if task.labels.marks:  # painted from black to white
        share = opacity * colour[..., :1] / 255
        colour = _MARK.expand_as(photo)
    elif isinstance(task, Segmentation) and _first_is_clear(task):
        share = share * (_sampled(label, longest)[..., None] != 0)
    return Image.fromarray(_array(_bytes(torch.lerp(photo, colour, share))))


# ---------------------------------------------------------------------- what colours mean


def pixels_by_class(task: Task, label: Tensor) -> Tensor:
    """Count the pixels of each class; of a task without classes there is nothing to count.

    Shape:
        ``(H, W) -> (channels,)``, else ``(0,)``
    """
    if not isinstance(task, Segmentation):
        return torch.zeros(0, dtype=torch.int64)
    return label.flatten().bincount(minlength=task.channels)


def span_of(depths: Tensor) -> tuple[float, float]:
    """Give the depths that pictures show in their first and last colour: all but 1 % at each end.

    Example:
        >>> span_of(torch.linspace(1, 5, 101).reshape(1, 101))
        (1.04, 4.96)
    """
    some = depths.flatten()[:: max(1, depths.numel() // 100_000)].float()
    near, far = some.quantile(torch.tensor([0.01, 0.99], device=some.device)).tolist()
    return round(near, 4), round(far, 4)


def legend(
    task: Task,
    counts: Tensor,
    laid_over: bool = False,
    span: tuple[float, float] | None = None,
) -> list[tuple[Colour, str]]:
    """Give colour and meaning: of classes those that ``counts`` has pixels of, largest first.

    Args:
        task: The task.
        counts: Pixels by class.
        laid_over: Whether the picture lies over the image, where some pixels stay clear.
        span: Of depths, those in the first and the last colour; None for several images.
    """
    if isinstance(task, Segmentation):
        colours = palette(max(256, task.channels))
        order = counts.argsort(descending=True).tolist()
        clear = laid_over and _first_is_clear(task)
        seen = [i for i in order if counts[i] and not (clear and i == 0)]
        return [(_rgb(colours[i]), task.classes[i]) for i in seen]
    if task.labels.name == "normals":
        return [
            ((255, 128, 128), "right"),
            ((128, 255, 128), "up"),
            ((128, 128, 255), "to the viewer"),
        ]
    if isinstance(task, Depth):
        first, last = ramp(torch.tensor([[0.0, 1.0]]))[0]
        names = ("nearest", "farthest") if span is None else [f"{depth:.3g} m" for depth in span]
        return [(_rgb(first), names[0]), (_rgb(last), names[1])]
    if laid_over:
        return [(_rgb(_MARK.byte()), "probability 1")]
    return [((0, 0, 0), "probability 0"), ((255, 255, 255), "probability 1")]


def _first_is_clear(task: Segmentation) -> bool:
    return task.classes[0].lower() in _CLEAR


def draw_legend(
    pen: ImageDraw.ImageDraw, entries: Sequence[tuple[Colour, str]], at: tuple[int, int], width: int
) -> None:
    """Write entries in columns under one another; long names are cut."""
    font = ImageFont.load_default(_TEXT)
    columns = max(1, width // _ENTRY)
    for index, (colour, name) in enumerate(entries):
        x, y = at[0] + index % columns * _ENTRY, at[1] + index // columns * _LINE
        pen.rectangle((x, y + 2, x + 11, y + 13), colour, outline=FAINT)
        while name and pen.textlength(name, font) > _ENTRY - 22:
            name = f"{name.rstrip('.')[:-1]}..."
        pen.text((x + 16, y), name, INK, font)


def legend_height(entries: int, width: int) -> int:
    """Give how tall `draw_legend` gets."""
    return _LINE * -(-entries // max(1, width // _ENTRY))


# ---------------------------------------------------------------------- rows


def titled_tiles(tiles: Sequence[Tile], laid_over: bool = False) -> Image.Image:
    """Lay out tiles in rows: a title over each, under it what its colours mean.

    Args:
        tiles: The tiles.
        laid_over: Whether they lie over the image.
    """
    cell = max(_ENTRY, *(tile.width for _, tile, _, _ in tiles))
    across = min(len(tiles), max(1, _WIDE // (cell + _GAP)))
    across = -(-len(tiles) // -(-len(tiles) // across))  # rows of one length
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    drawn = [_row(row, cell, laid_over) for row in rows]
    sheet = Image.new("RGB", (drawn[0].width, sum(each.height for each in drawn)), "white")
    for index, each in enumerate(drawn):
        sheet.paste(each, (0, sum(above.height for above in drawn[:index])))
    return sheet


def _row(tiles: Sequence[Tile], cell: int, laid_over: bool) -> Image.Image:
    entries = [_legend_of(task, label, laid_over) for _, _, task, label in tiles]
    tall = max(tile.height for _, tile, _, _ in tiles)
    below = max(legend_height(len(each), cell) for each in entries)
    size = (len(tiles) * (cell + _GAP) + _GAP, _TITLE + tall + below + 3 * _GAP)
    row = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(row), ImageFont.load_default(_TEXT + 1)
    for index, (title, tile, _, _) in enumerate(tiles):
        x = _GAP + index * (cell + _GAP)
        pen.text((x, _GAP // 2), title, INK, font)
        row.paste(tile, (x, _TITLE))
        draw_legend(pen, entries[index], (x, _TITLE + tall + _GAP), cell)
    return row


def _legend_of(
    task: Task | None, label: Tensor | None, laid_over: bool
) -> list[tuple[Colour, str]]:
    """Give the legend of a tile; the image's own has none."""
    if task is None or label is None:
        return []
    span = span_of(label) if isinstance(task, Depth) else None
    return legend(task, pixels_by_class(task, label), laid_over, span)


# ---------------------------------------------------------------------- sizes and numbers


def fitted(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """Give width and height of a picture whose longer side is at most ``longest``.

    Example:
        >>> fitted((200, 100), 50), fitted((200, 100), None)
        ((25, 50), (100, 200))
    """
    height, width = size
    scale = 1.0 if longest is None else min(1.0, longest / max(size))
    return max(1, round(scale * width)), max(1, round(scale * height))


def _shrunk(picture: Image.Image, longest: int | None, smooth: bool = False) -> Image.Image:
    size = fitted((picture.height, picture.width), longest)
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.BOX
    return picture if size == picture.size else picture.resize(size, how)


def _sampled(label: Tensor, longest: int | None) -> Tensor:
    """Sample classes at the centres of a picture's pixels."""
    height, width = label.shape[-2:]
    wide, tall = fitted((height, width), longest)
    rows = ((torch.arange(tall) + 0.5) * (height / tall)).long()
    columns = ((torch.arange(wide) + 0.5) * (width / wide)).long()
    return label[rows][:, columns]


def _counted(label: Tensor) -> bool:
    return not label.is_floating_point()


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _array(pixels: Tensor) -> np.ndarray:
    return np.ascontiguousarray(pixels.numpy())


def _rgb(colour: Tensor) -> Colour:
    red, green, blue = colour.tolist()
    return red, green, blue
