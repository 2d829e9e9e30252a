"""Transforms that move image and labels. Random draws use torch's generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torchvision.transforms.v2 import functional as F

from peft_dense.data.labels import Item
from peft_dense.data.transforms.draws import between, checked_probability, checked_size, corner
from peft_dense.data.transforms.functions import flip, resize, rotate
from peft_dense.data.transforms.joint import move_each
from peft_dense.data.transforms.map_types import Label, Motion
from peft_dense.errors import HyperparameterError, ShapeError

__all__ = ["PadTo", "RandomCrop", "RandomFlip", "RandomRotation", "RandomScaleCrop", "Resize"]


class Resize:
    """Resample every item to one size, whatever its proportions (see `resize`).

    Args:
        size: Height and width.

    Raises:
        HyperparameterError: If ``size`` isn't two positive integers.

    Example:
        >>> Resize((8, 12))({"image": torch.rand(3, 4, 4)})["image"].shape
        torch.Size([3, 8, 12])
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = checked_size(size)

    def __call__(self, item: Item) -> Item:
        """Resample one item."""
        return resize(item, *self.size)


class PadTo:
    """Add rows below and columns to the right until an item has a size.

    The item stays at the top left, so ``[..., :H, :W]`` gives it back.

    Args:
        size: Height and width of the result.

    Raises:
        HyperparameterError: If ``size`` isn't two positive integers.
        ShapeError: On an item that is larger.

    Example:
        >>> PadTo((2, 3))({"sal": torch.ones(1, 2, dtype=torch.int64)})["sal"].tolist()
        [[1, 1, 255], [255, 255, 255]]
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = checked_size(size)

    def __call__(self, item: Item) -> Item:
        """Pad one item."""
        height, width = self.size

        def one(entry: Any) -> Any:
            here = F.get_size(entry)
            if here[0] > height or here[1] > width:
                raise ShapeError(
                    f"an item of {here[0]} x {here[1]} can't be padded to {height} x {width} "
                    "(height x width); Resize or RandomCrop it first, or pad to more."
                )
            return F.crop(entry, 0, 0, height, width)

        return move_each(one, item)


class RandomFlip:
    """Mirror an item with probability ``p`` (see `flip`).

    Args:
        p: Probability.

    Raises:
        HyperparameterError: If ``p`` isn't a probability.

    Example:
        >>> RandomFlip(1.0)({"image": torch.tensor([[[0.0, 1.0]]])})["image"].tolist()
        [[[1.0, 0.0]]]
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = checked_probability(p)

    def __call__(self, item: Item) -> Item:
        """Mirror one item, or pass it on."""
        return flip(item) if torch.rand(()).item() < self.p else item


class RandomRotation:
    """Turn an item by a random angle with probability ``p`` (see `rotate`).

    Args:
        degrees: Smallest and largest angle, counter-clockwise; one number d means -d to d.
        p: Probability.

    Raises:
        HyperparameterError: If the angles aren't in order, or ``p`` isn't a probability.

    Example:
        >>> normals = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        >>> turned = RandomRotation((180, 180))({"normals": normals})["normals"]
        >>> turned.flatten().round().tolist()
        [-1.0, 0.0, 0.0]
    """

    def __init__(self, degrees: float | tuple[float, float], p: float = 1.0) -> None:
        pair = tuple(degrees) if isinstance(degrees, Sequence) else (-degrees, degrees)
        if len(pair) != 2 or not pair[0] <= pair[1]:
            raise HyperparameterError(
                f"degrees={degrees}: expected one number from 0, or smallest <= largest."
            )
        self.degrees = pair
        self.p = checked_probability(p)

    def __call__(self, item: Item) -> Item:
        """Turn one item, or pass it on."""
        return rotate(item, between(*self.degrees)) if torch.rand(()).item() < self.p else item


class RandomCrop:
    """Cut a random window out of an item; what is smaller is padded, at a random place.

    Args:
        size: Height and width of the result.

    Raises:
        HyperparameterError: If ``size`` isn't two positive integers.

    Example:
        >>> RandomCrop((4, 6))({"image": torch.rand(3, 5, 5)})["image"].shape
        torch.Size([3, 4, 6])
    """

    def __init__(self, size: Sequence[int]) -> None:
        self.size = checked_size(size)

    def __call__(self, item: Item) -> Item:
        """Crop one item."""
        drawn = torch.rand(2).tolist()  # one draw for all maps, whose size is seen inside

        def one(entry: Any) -> Any:
            return F.crop(entry, *corner(F.get_size(entry), self.size, drawn), *self.size)

        return move_each(one, item)


class RandomScaleCrop:
    """Resample an item to ``s * size`` with a random ``s``, then cut or pad it to ``size``.

    At ``s = 1`` it equals `Resize`. Padding is black in the image, and in labels what
    ``item["meta"]["padding"]`` says. Depth is divided by ``s``: at an unchanged focal length, what
    looks twice as large is half as far.

    Args:
        size: Height and width of the result.
        scale: Smallest and largest ``s``.

    Shape:
        ``(..., H, W) -> (..., *size)`` for every map

    Raises:
        HyperparameterError: If ``size`` or ``scale`` isn't a pair of positive numbers in order.

    Example:
        >>> crop = RandomScaleCrop((6, 8), scale=(0.5, 0.5))
        >>> item = crop({"image": torch.rand(3, 20, 20), "depth": torch.full((1, 20, 20), 2.0)})
        >>> item["image"].shape, item["depth"].unique().tolist()
        (torch.Size([3, 6, 8]), [0.0, 4.0])
    """

    def __init__(self, size: Sequence[int], scale: tuple[float, float] = (0.75, 1.25)) -> None:
        self.size = checked_size(size)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise HyperparameterError(f"scale={scale}: expected 0 < smallest <= largest.")
        self.scale = scale

    def __call__(self, item: Item) -> Item:
        """Scale and crop one item."""
        scale = between(*self.scale)
        scaled = [max(1, round(scale * side)) for side in self.size]
        place = corner(scaled, self.size, torch.rand(2).tolist())

        def one(entry: Any) -> Any:
            entry = F.crop(F.resize(entry, scaled), *place, *self.size)
            return entry.after(Motion(zoom=scale)) if isinstance(entry, Label) else entry

        return move_each(one, item)
