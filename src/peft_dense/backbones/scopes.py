"""Where the tokens of a site lie on the map, and which module around it sees that map.

All is read off counts: the site's tokens against its stage output's map, and against the maps and
(H, W) pairs that the modules around the site were called with, at every image size that was tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from peft_dense.backbones.places import MapScope
from peft_dense.backbones.watch import Call, Calls

__all__ = ["common_stride", "find_scope", "prefix_tokens"]

MOST_PREFIX = 16
"""The most class and register tokens that may lie before a map's tokens."""

Grid = tuple[int, ...]


def prefix_tokens(grids: Sequence[Grid], maps: Sequence[Grid]) -> int | None:
    """How many tokens come before those of the map, or None where the rest isn't that map.

    Args:
        grids: The site's own (N,) or (H, W), at every size.
        maps: Height and width of its stage output, at every size.

    Example:
        >>> prefix_tokens([(197,), (257,)], [(14, 14), (16, 16)])
        1
        >>> prefix_tokens([(14, 14)], [(14, 14)])
        0
    """
    if any(len(grid) != 1 for grid in grids):
        return 0 if list(grids) == list(maps) else None
    extra = {grid[0] - math.prod(area) for grid, area in zip(grids, maps, strict=True)}
    prefix = extra.pop()
    return prefix if not extra and 0 <= prefix <= MOST_PREFIX else None


def common_stride(
    wholes: Sequence[Grid], grids: Sequence[Grid], first: Sequence[int] = ()
) -> int | None:
    """Return the stride by which every whole map becomes its grid, or None.

    Where several would do, one of ``first`` is taken, or else the smallest.

    Example:
        >>> common_stride([(224, 224), (256, 320)], [(4, 4), (4, 5)])
        64
        >>> common_stride([(14, 14)], [(49,)])
        2
    """
    ratio = math.sqrt(math.prod(wholes[0]) / max(1, math.prod(grids[0])))
    # Rounded up, a map is at most one row and one column larger than its share.
    strides: Iterable[int] = (*first, *range(max(1, math.floor(ratio)), math.ceil(ratio * 1.5) + 2))
    for stride in strides:
        if all(_fits(whole, grid, stride) for whole, grid in zip(wholes, grids, strict=True)):
            return stride
    return None


def _fits(whole: Grid, grid: Grid, stride: int) -> bool:
    reduced = tuple(-(-side // stride) for side in whole)
    return math.prod(reduced) == grid[0] if len(grid) == 1 else reduced == grid


def find_scope(
    site: str,
    records: Sequence[Calls],
    grids: Sequence[Grid],
    channel_axis: int,
    reductions: Sequence[int],
) -> MapScope | None:
    """Find the nearest module around a site, itself first, that sees the height and width.

    Args:
        site: Name of the site.
        records: The calls at every size; all have the site's.
        grids: What its tokens are at every size, without the prefix: (N,) or (H, W).
        channel_axis: The site's own.
        reductions: Strides of the stages.
    """
    parts = site.split(".")
    for length in range(len(parts), -1, -1):
        module = ".".join(parts[:length])
        seen = [_one_kind(record.get(module, [])) for record in records]
        calls = [call for call in seen if call is not None]
        if len(calls) != len(records) or len({len(call.arguments) for call in calls}) != 1:
            continue
        preferred = channel_axis if length == len(parts) else 1
        for argument in range(len(calls[0].arguments)):
            for axes, wholes in _maps(calls, argument, records, preferred):
                stride = common_stride(wholes, grids, () if module else reductions)
                if stride is not None:
                    return MapScope(module=module, argument=argument, axes=axes, stride=stride)
    return None


def _one_kind(calls: Sequence[Call]) -> Call | None:
    """The call of a module, where all its calls had the same arguments."""
    return calls[0] if calls and len({call.arguments for call in calls}) == 1 else None


def _maps(
    calls: Sequence[Call], argument: int, records: Sequence[Calls], preferred: int
) -> Iterator[tuple[tuple[int, int] | None, list[Grid]]]:
    """Yield how an argument could be a map, and its (H, W) at every size."""
    shapes = [call.arguments[argument] for call in calls]
    given = [shape for shape in shapes if shape is not None]
    if len(given) != len(calls):
        return
    if all(argument in call.pairs for call in calls):
        yield None, given
        return
    batches = [record[""][0].arguments[0] for record in records]
    same_batch = all(
        batch is not None and batch[0] == shape[0]
        for batch, shape in zip(batches, given, strict=True)
        if shape
    )
    if not same_batch or any(len(shape) != 4 for shape in given):
        return
    for channels in sorted((1, 3), key=lambda axis: axis != preferred % 4):
        if len({shape[channels] for shape in given}) == 1:
            axes = (2, 3) if channels == 1 else (1, 2)
            yield axes, [(shape[axes[0]], shape[axes[1]]) for shape in given]
