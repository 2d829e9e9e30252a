"""Joint transforms: what moves the image moves every label the right way.

Images are interpolated; labels are sampled (nearest), so no class is invented, no normal is mixed
with an ignored neighbour, and ignored pixels stay ignored. Random draws use torch's generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from peft_dense.data.labels import IGNORE, Item, ignored_value
from peft_dense.errors import HyperparameterError

__all__ = ["Compose", "RandomFlip", "RandomScaleCrop", "Resize", "flip", "resize"]


def resize(item: Item, height: int, width: int) -> Item:
    """Resample image and labels to one size: bilinear with antialiasing, and nearest.

    Args:
        item: An item of a data set; ``meta`` is passed on as it is.
        height: Rows wanted.
        width: Columns wanted.

    Shape:
        ``(..., H, W) -> (..., height, width)`` for every entry

    Example:
        >>> item = {"image": torch.rand(3, 8, 8), "sal": torch.ones(8, 8, dtype=torch.int64)}
        >>> resize(item, 4, 6)["sal"].shape
        torch.Size([4, 6])
    """

    def one(name: str, value: Tensor) -> Tensor:
        if value.shape[-2:] == (height, width):
            return value
        if name == "image":
            return F.interpolate(
                value[None], (height, width), mode="bilinear", antialias=True, align_corners=False
            )[0]
        rows = _nearest(height, value.shape[-2])
        columns = _nearest(width, value.shape[-1])
        return value[..., rows[:, None], columns]

    return _map(item, one)


def flip(item: Item) -> Item:
    """Mirror image and labels left to right; the x of valid normals changes its sign.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every entry

    Example:
        >>> facing_right = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        >>> flip({"normals": facing_right})["normals"].flatten().tolist()
        [-1.0, 0.0, 0.0]
    """

    def one(name: str, value: Tensor) -> Tensor:
        value = value.flip(-1)
        if name == "normals":
            valid = (value != IGNORE).any(0)
            value = torch.cat([torch.where(valid, -value[:1], value[:1]), value[1:]])
        return value

    return _map(item, one)


class Compose:
    """Apply transforms one after another.

    Args:
        transforms: Callables from item to item.

    Example:
        >>> both = Compose(Resize((4, 4)), RandomFlip(1.0))
        >>> both({"image": torch.rand(3, 8, 8)})["image"].shape
        torch.Size([3, 4, 4])
    """

    def __init__(self, *transforms: Callable[[Item], Item]) -> None:
        self.transforms = transforms

    def __call__(self, item: Item) -> Item:
        """Transform one item."""
        for transform in self.transforms:
            item = transform(item)
        return item


class Resize:
    """Resample every item to one size, whatever its proportions (see `resize`).

    Args:
        size: Height and width.

    Raises:
        HyperparameterError: If ``size`` isn't two positive integers.
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = _checked_size(size)

    def __call__(self, item: Item) -> Item:
        """Resample one item."""
        return resize(item, *self.size)


class RandomFlip:
    """Mirror an item with probability ``p`` (see `flip`).

    Args:
        p: Probability.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise HyperparameterError(f"p is a probability; got {p}, expected 0 to 1.")
        self.p = p

    def __call__(self, item: Item) -> Item:
        """Mirror one item, or pass it on."""
        return flip(item) if torch.rand(()).item() < self.p else item


class RandomScaleCrop:
    """Resample an item to ``s * size`` with a random ``s``, then cut or pad it to ``size``.

    At ``s = 1`` it equals `Resize`. Padding is black in the image and ignored in every label. Depth
    is divided by ``s``: at an unchanged focal length, what looks twice as large is half as far.

    Args:
        size: Height and width of the result.
        scale: Smallest and largest ``s``.

    Shape:
        ``(..., H, W) -> (..., *size)`` for every entry

    Raises:
        HyperparameterError: If ``size`` or ``scale`` isn't a pair of positive numbers in order.

    Example:
        >>> crop = RandomScaleCrop((6, 8), scale=(0.5, 0.5))
        >>> item = crop({"image": torch.rand(3, 20, 20), "depth": torch.full((1, 20, 20), 2.0)})
        >>> item["image"].shape, item["depth"].unique().tolist()
        (torch.Size([3, 6, 8]), [0.0, 4.0])
    """

    def __init__(self, size: Sequence[int], scale: tuple[float, float] = (0.75, 1.25)) -> None:
        self.size = _checked_size(size)
        low, high = scale
        if not 0 < low <= high:
            raise HyperparameterError(f"scale={scale}: expected 0 < smallest <= largest.")
        self.scale = (low, high)

    def __call__(self, item: Item) -> Item:
        """Scale and crop one item."""
        low, high = self.scale
        scale = low + (high - low) * torch.rand(()).item()
        scaled = [max(1, round(scale * side)) for side in self.size]
        moves = []
        for side, now in zip(self.size, scaled, strict=True):
            slack = side - now
            before = int(torch.randint(abs(slack) + 1, ()).item()) * (1 if slack > 0 else -1)
            moves.append((before, slack - before))  # negative: cut away
        (top, bottom), (left, right) = moves

        def one(name: str, value: Tensor) -> Tensor:
            if name == "depth":
                value = value / scale
            fill = 0 if name == "image" else ignored_value(name)
            return F.pad(value, (left, right, top, bottom), value=fill)

        return _map(resize(item, *scaled), one)


def _map(item: Item, function: Callable[[str, Tensor], Tensor]) -> Item:
    """Apply ``function(name, tensor)`` to everything but ``meta``; the item itself stays."""
    return {name: v if name == "meta" else function(name, v) for name, v in item.items()}


def _nearest(wanted: int, given: int) -> Tensor:
    """Index the old pixel whose centre is nearest to each new pixel's centre."""
    return ((torch.arange(wanted) + 0.5) * (given / wanted)).long().clamp_(max=given - 1)


def _checked_size(size: Sequence[int]) -> tuple[int, int]:
    if len(size) != 2 or any(int(side) != side or side < 1 for side in size):
        raise HyperparameterError(f"size={size}: expected (height, width), positive integers.")
    return int(size[0]), int(size[1])
