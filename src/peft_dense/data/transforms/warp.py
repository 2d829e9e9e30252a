"""Rotate, scale, crop and mirror in one resampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.tv_tensors import TVTensor

from peft_dense.data.labels import Item
from peft_dense.data.transforms.draws import between, checked_probability, checked_size, corner
from peft_dense.data.transforms.joint import check_sizes, is_map
from peft_dense.data.transforms.map_types import Label, Motion, map_type
from peft_dense.errors import HyperparameterError

__all__ = ["RandomWarp"]


class View(NamedTuple):
    """What a warp shows of an image: turned, at a size, through a window, mirrored or not."""

    degrees: float
    scaled: tuple[int, int]
    corner: tuple[int, int]
    mirrored: bool


class RandomWarp:
    """Rotate, resample to ``s * size``, cut or pad to ``size``, and mirror: all in one resampling.

    It draws what `RandomRotation`, `RandomScaleCrop` and `RandomFlip` draw one after another, and
    shows the same within the error of resampling: each of those interpolates or samples anew, this
    does once, in a fraction of their time. Images are interpolated from a source that is smoothed
    as far as they shrink; each pixel of a label is one pixel of its source.

    It takes images of bytes, and images that were decoded at a half, a quarter or an eighth of the
    labels' size (`peft_dense.data.sources.files.LabelledFiles`).

    Args:
        size: Height and width of the result.
        scale: Smallest and largest ``s``.
        rotation: Largest angle in degrees, either way; 0: none.
        flip: Probability of being mirrored.

    Shape:
        ``(..., H, W) -> (..., *size)`` for every map

    Raises:
        HyperparameterError: If one of them is out of range.

    Example:
        >>> warp = RandomWarp((6, 8), scale=(0.5, 0.5), flip=0)
        >>> item = warp({"image": torch.rand(3, 20, 20), "depth": torch.full((1, 20, 20), 2.0)})
        >>> item["image"].shape, item["depth"].unique().tolist()
        (torch.Size([3, 6, 8]), [0.0, 4.0])
    """

    treats_bytes = True

    def __init__(
        self,
        size: Sequence[int],
        scale: tuple[float, float] = (0.75, 1.25),
        rotation: float = 0,
        flip: float = 0.5,
    ) -> None:
        self.size = checked_size(size)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise HyperparameterError(f"scale={scale}: expected 0 < smallest <= largest.")
        if not 0 <= rotation <= 180:
            raise HyperparameterError(f"rotation={rotation}: expected degrees from 0 to 180.")
        self.scale, self.rotation = scale, rotation
        self.flip = checked_probability(flip)

    @property
    def smallest(self) -> tuple[int, int]:
        """Height and width of an image that is large enough for every view."""
        height, width = (math.ceil(self.scale[1] * side) for side in self.size)
        return height, width

    def __call__(self, item: Item) -> Item:
        """Warp one item."""
        degrees = 0.0
        if self.rotation:
            torch.rand(())  # RandomRotation asks whether to turn; so seeds mean the same
            degrees = between(-self.rotation, self.rotation)
        zoom = between(*self.scale)
        height, width = (max(1, round(zoom * side)) for side in self.size)
        top, left = corner((height, width), self.size, torch.rand(2).tolist())
        mirrored = torch.rand(()).item() < self.flip
        view = View(degrees, (height, width), (top, left), mirrored)
        turn = Motion.rotation(degrees).turn if degrees else Motion().turn
        if turn and mirrored:
            turn = ((-turn[0][0], -turn[0][1]), turn[1])
        return _warp(item, self.size, view, Motion(turn, zoom))


def _warp(item: Item, size: tuple[int, int], view: View, motion: Motion) -> Item:
    maps = {name: value for name, value in item.items() if is_map(name, value)}
    labels = {name: value for name, value in maps.items() if name != "image"}
    given = next(iter(labels.values()), maps.get("image"))
    if given is None:
        return item
    native = (given.shape[-2], given.shape[-1])
    reduced = _reduction(maps.get("image"), native)
    check_sizes(labels if reduced > 1 else maps, "an item")
    y, x = _sources(native, size, view)
    outside = _outside(y, x, native) | _beyond(size, view)
    bare = bool(outside.any())  # often nothing is, and filling costs as much as sampling
    rows, columns = (
        at.floor().clamp_(0, side - 1).long() for at, side in zip((y, x), native, strict=True)
    )
    if view.degrees:
        index = (rows * native[1] + columns).flatten()
    moved: dict[str, Any] = {}
    for name, value in labels.items():
        cls = type(value) if isinstance(value, TVTensor) else map_type(name, item)
        plain = value.as_subclass(Tensor)
        if view.degrees:
            sampled = plain.flatten(-2).index_select(-1, index).unflatten(-1, size)
        else:
            sampled = plain.index_select(-2, rows[:, 0]).index_select(-1, columns[0])
        if bare:
            sampled.masked_fill_(outside, cls.empty)
        seen: Label = sampled.as_subclass(cls).after(motion)
        moved[name] = seen if isinstance(value, TVTensor) else seen.as_subclass(Tensor)
    if "image" in maps:
        image = maps["image"]
        shrinks = [n / s / reduced for n, s in zip(native, view.scaled, strict=True)]
        seen_image = _interpolate(image.as_subclass(Tensor), y / reduced, x / reduced, shrinks)
        if bare:
            seen_image.masked_fill_(outside, 0)
        kept = isinstance(image, TVTensor)
        moved["image"] = seen_image.as_subclass(type(image)) if kept else seen_image
    return {**item, **moved}


def _sources(native: tuple[int, int], size: tuple[int, int], view: View) -> tuple[Tensor, Tensor]:
    """Give where in the source the centre of each pixel of the view lies, from the top left.

    Shape:
        ``(H, W), (H, W)``, or where nothing turns ``(H, 1), (1, W)``
    """
    (height, width), (tall, wide) = native, view.scaled
    v = (torch.arange(size[0]) + 0.5 + view.corner[0]) * (height / tall) - height / 2
    u = torch.arange(size[1]) + 0.5
    u = ((size[1] - u if view.mirrored else u) + view.corner[1]) * (width / wide) - width / 2
    if not view.degrees:
        return (v + height / 2)[:, None], (u + width / 2)[None]
    angle = math.radians(view.degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    y = (v * cos + height / 2)[:, None] + (u * sin)[None]
    x = (width / 2 - v * sin)[:, None] + (u * cos)[None]
    return y, x


def _outside(y: Tensor, x: Tensor, native: tuple[int, int]) -> Tensor:
    """Mark the pixels of a view whose source lies outside of the picture."""
    height, width = native
    return ((x < 0) | (x >= width)) | ((y < 0) | (y >= height))


def _beyond(size: tuple[int, int], view: View) -> Tensor:
    """Mark the pixels of a view that lie beyond the turned and scaled picture."""
    rows = torch.arange(size[0]) + view.corner[0]
    columns = torch.arange(size[1])
    columns = (columns.flip(0) if view.mirrored else columns) + view.corner[1]
    outside_rows = (rows < 0) | (rows >= view.scaled[0])
    outside_columns = (columns < 0) | (columns >= view.scaled[1])
    return outside_rows[:, None] | outside_columns[None]


def _reduction(image: Tensor | None, native: tuple[int, int]) -> int:
    """Give the factor by which an image was decoded smaller than its labels: 1, 2, 4 or 8."""
    if image is not None:
        for part in (2, 4, 8):
            if tuple(image.shape[-2:]) == tuple(-(-side // part) for side in native):
                return part
    return 1


def _interpolate(image: Tensor, y: Tensor, x: Tensor, shrinks: Sequence[float]) -> Tensor:
    """Sample an image bilinearly, after smoothing it as far as it shrinks."""
    source = image.float()[None]
    pools = [max(1, int(shrink)) for shrink in shrinks]
    if max(pools) > 1:
        source = F.avg_pool2d(source, pools, ceil_mode=True, count_include_pad=False)
        y, x = y / pools[0], x / pools[1]
    for axis, (shrink, pool) in zip((-2, -1), zip(shrinks, pools, strict=True), strict=True):
        source = _smooth(source, axis, shrink / pool, pool)
    height, width = source.shape[-2:]
    size = (y.shape[0], x.shape[1])
    grid = torch.empty(1, *size, 2)
    torch.mul(x.expand(size), 2 / width, out=grid[0, ..., 0])
    torch.mul(y.expand(size), 2 / height, out=grid[0, ..., 1])
    seen = F.grid_sample(source, grid.sub_(1), padding_mode="border", align_corners=False)[0]
    return seen.round_().to(torch.uint8) if image.dtype == torch.uint8 else seen


def _smooth(source: Tensor, axis: int, shrink: float, pool: int) -> Tensor:
    r"""Smooth by ``(t, 1 - 2 t, t)`` along an axis, so that shrinking doesn't alias.

    The usual antialiasing filter, a triangle of half-width f, has the variance f^2 / 6. Bilinear
    interpolation brings 1 / 6 of it, pooling over p pixels (1 - 1 / p^2) / 12, and these three taps
    bring 2 t.
    """
    variance = (shrink**2 - 1) / 6 - (1 - 1 / pool**2) / 12
    tap = min(variance / 2, 0.25)
    length = source.shape[axis]
    if tap < 0.005 or length < 2:
        return source
    smooth = source * (1 - 2 * tap)
    first, last = (source.narrow(axis, at, 1) for at in (0, length - 1))
    smooth.narrow(axis, 1, length - 1).add_(source.narrow(axis, 0, length - 1), alpha=tap)
    smooth.narrow(axis, 0, length - 1).add_(source.narrow(axis, 1, length - 1), alpha=tap)
    smooth.narrow(axis, 0, 1).add_(first, alpha=tap)
    smooth.narrow(axis, length - 1, 1).add_(last, alpha=tap)
    return smooth
