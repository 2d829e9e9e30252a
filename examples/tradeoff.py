#!/usr/bin/env python
"""Draw what methods cost against what they gain, from the results that train.py left.

    python examples/tradeoff.py runs/demo --reference multitask_full --out runs/demo/tradeoff.png

Folders are searched for results.json. Runs of one method that differ by their seed make one dot,
their mean, with a bar of one standard deviation to either side; a seed's Delta is over the
reference of that seed. A method without parameters stands over 0 on the log axis.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from peft_dense.cli.output import exit_status
from peft_dense.errors import DataError, UnknownNameError
from peft_dense.tasks import delta_m

Point = tuple[str, int, float, float]  # method, parameters, Delta, its deviation over the seeds
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 640, 76, 26, 30, 66
INK, GRID, DOT, BAR = (40, 40, 40), (225, 225, 225), (0, 128, 128), (150, 200, 200)


def read(places: Sequence[Path], reference: str | None) -> tuple[list[Point], str]:
    """Give a point for every method in the results, and the name of the reference."""
    files = [file for place in places for file in sorted(place.rglob("results.json"))]
    if not files:
        raise DataError(f"no results.json in {', '.join(map(str, places))}; run train.py first.")
    runs: dict[str, dict[int | None, tuple[Path, dict[str, Any]]]] = {}  # by name and seed
    for file in files:
        result = json.loads(file.read_text("utf-8"))
        name, seed = result.get("label", result["method"]), result.get("seed")
        if seed in runs.setdefault(name, {}):
            raise DataError(
                f"{runs[name][seed][0]} and {file} are both {name} with seed {seed}; name folders "
                "that hold one of them."
            )
        runs[name][seed] = file, result
    chosen = reference or ("decoders_only" if "decoders_only" in runs else next(iter(runs)))
    if chosen not in runs:
        raise UnknownNameError.of("reference among the results", chosen, list(runs))
    return [_point(name, seeds, chosen, runs[chosen]) for name, seeds in runs.items()], chosen


def _point(
    name: str,
    seeds: dict[int | None, tuple[Path, dict[str, Any]]],
    chosen: str,
    bases: dict[int | None, tuple[Path, dict[str, Any]]],
) -> Point:
    gains = []
    for seed, (file, result) in seeds.items():
        if seed not in bases:
            raise DataError(f"{file} has seed {seed}, and there is no {chosen} with that seed.")
        gains.append(delta_m(result["primary"], bases[seed][1]["primary"]))
    if not all(map(math.isfinite, gains)):
        raise DataError(f"no Delta over {chosen}: a score is zero or NaN. Leave that run out.")
    encoder = next(iter(seeds.values()))[1]["encoder"]
    return name, encoder, fmean(gains), stdev(gains) if len(gains) > 1 else 0.0


def ticks(low: float, high: float) -> list[float]:
    """Give up to seven round numbers that reach around ``low`` and ``high``."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-3) / 3))
    step *= next(times for times in (1, 2, 5, 10) if (high - low) / (times * step) <= 5)
    return [i * step for i in range(math.floor(low / step), math.floor(high / step) + 2)]


def draw(points: Sequence[Point], reference: str) -> Image.Image:
    sheet = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    right, base = WIDTH - RIGHT, HEIGHT - BOTTOM
    up = ticks(min(gain - off for *_, gain, off in points), max(g + off for *_, g, off in points))
    counts = [count for _, count, *_ in points if count] or [1]
    first, last = math.floor(math.log10(min(counts))), math.ceil(math.log10(max(counts)) + 1e-9)
    start = LEFT + 56 if any(not count for _, count, *_ in points) else LEFT  # room for the zero

    def across(count: float) -> float:
        place = (math.log10(count) - first) / (last - first) if count else 0
        return start + (right - start) * place if count else LEFT + 14

    def height(gain: float) -> float:
        return base - (base - TOP) * (gain - up[0]) / (up[-1] - up[0])

    for gain in up:
        pen.line([LEFT, height(gain), right, height(gain)], GRID)
        pen.text((LEFT - 8, height(gain)), f"{gain:+.3g}" if gain else "0", INK, font, "rm")
    for power in range(first, last + 1):
        x, unit = across(10.0**power), max(0, power // 3)
        pen.line([x, TOP, x, base], GRID)
        pen.text((x, base + 8), f"{10 ** (power - 3 * unit)} {' kMG'[unit]}", INK, font, "mt")
    if start > LEFT:
        pen.text((across(0), base + 8), "0", INK, font, "mt")
        for shift in (0, 5):  # the axis is broken between nothing and the first power
            pen.line([start - 24 + shift, base + 5, start - 20 + shift, base - 5], INK)
    pen.line([LEFT, TOP, LEFT, base, right, base], INK)
    pen.text((right, HEIGHT - 14), "trainable parameters of the encoder", INK, font, "rs")
    pen.text((LEFT, HEIGHT - 14), f"Delta (%) over {reference}", INK, font, "ls")

    dots = [(across(count), height(gain)) for _, count, gain, _ in points]
    for (*_, gain, off), (x, _) in zip(points, dots, strict=True):
        pen.line([x, height(gain - off), x, height(gain + off)], BAR, 2)
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for dot in taken:
        pen.ellipse(dot, DOT)
    for (name, *_), (x, y) in sorted(zip(points, dots, strict=True), key=lambda item: item[1][1]):
        wide = pen.textlength(name, font)
        lefts = (x + 9, x - 9 - wide, x - wide / 2)
        boxes = [(a, y + b, a + wide, y + b + 16) for b in (-9, -25, 8) for a in lefts]
        inside = [box for box in boxes if box[0] > LEFT and box[2] < WIDTH and box[3] < base]
        box = min(inside or boxes[:1], key=lambda box: sum(_overlap(box, each) for each in taken))
        taken.append(box)
        pen.text(box[:2], name, INK, font)
    return sheet


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    return math.prod(max(0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1))


def main(argv: Sequence[str] | None = None) -> list[Point]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders that hold results.json files")
    parser.add_argument("--reference", help="method; default: decoders_only, else the first")
    parser.add_argument("--out", type=Path, default=Path("tradeoff.png"))
    args = parser.parse_args(argv)
    points, reference = read(args.runs, args.reference)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(points, reference).save(args.out)
    print(f"{len(points)} points over {reference}: {args.out}")
    return points


if __name__ == "__main__":
    sys.exit(exit_status(main))
