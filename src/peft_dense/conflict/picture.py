"""Figure 4 of VMT-Adapter: histograms of angles, one panel per training run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw"]

_WIDTH, _HEIGHT = 460, 340
_LEFT, _TOP, _RIGHT, _BOTTOM = 68, 64, 20, 56  # margins around the axes of a panel
_AGREE, _CONFLICT, _INK, _GRID = (0, 128, 128), (214, 96, 77), (40, 40, 40), (225, 225, 225)


def draw(panels: Sequence[tuple[str, Sequence[float], float]]) -> Image.Image:
    """Draw panels side by side on one scale: name, share of each bin, share over 90 degrees."""
    sheet = Image.new("RGB", (_WIDTH * len(panels), _HEIGHT), "white")
    tick = _tick(max(max(shares) for _, shares, _ in panels))
    top = tick * math.ceil(max(max(shares) for _, shares, _ in panels) / tick - 1e-9)
    for index, (name, shares, conflict) in enumerate(panels):
        panel = _panel(name, shares, conflict, max(top, tick), tick)
        sheet.paste(panel, (index * _WIDTH, 0))
    return sheet


def _tick(largest: float) -> float:
    """Choose a round distance of ticks, such that there are three to six."""
    power = 10.0 ** math.floor(math.log10(max(largest, 0.01) / 3))
    return next(step * power for step in (1, 2, 5, 10) if largest / (step * power) <= 6)


def _panel(
    name: str, shares: Sequence[float], conflict: float, top: float, tick: float
) -> Image.Image:
    panel = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen, small, large = (
        ImageDraw.Draw(panel),
        ImageFont.load_default(13),
        ImageFont.load_default(16),
    )
    left, right = _LEFT, _WIDTH - _RIGHT
    base, wide, high = _HEIGHT - _BOTTOM, right - left, _HEIGHT - _TOP - _BOTTOM

    pen.text((8, _TOP - 12), "share of angles", _INK, small, "ls")
    for step in range(round(top / tick) + 1):
        y = base - high * step * tick / top
        pen.line([left, y, right, y], _GRID)
        pen.text((left - 8, y), f"{100 * step * tick:g}%", _INK, small, "rm")
    for index, share in enumerate(shares):
        ends = [left + wide * (index + side) / len(shares) for side in (0, 1)]
        over = (index + 0.5) / len(shares) > 0.5
        if share > 0:
            box = [round(ends[0]) + 1, base - high * share / top, round(ends[1]) - 1, base]
            pen.rectangle(box, _CONFLICT if over else _AGREE)
    middle = (left + right) / 2
    for y in range(_TOP, base, 8):  # dashes
        pen.line([middle, y, middle, y + 4], _INK)
    pen.line([left, base, right, base], _INK)
    for degrees in range(0, 181, 30):
        x = left + wide * degrees / 180
        pen.line([x, base, x, base + 5], _INK)
        pen.text((x, base + 8), str(degrees), _INK, small, "mt")
    pen.text(
        (middle, _HEIGHT - 10), "angle between two tasks' gradients (degrees)", _INK, small, "ms"
    )
    title = f"{name}: " if name else ""
    pen.text((middle, 12), f"{title}{100 * conflict:.1f}% over 90 degrees", _INK, large, "mt")
    return panel
