"""Items as bytes, for the way to the device, and as floats."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peft_dense.data.labels import Item, label_kind
from peft_dense.data.transforms.joint import is_map

__all__ = ["Pack", "Unpack"]


class Pack:
    """Make the image bytes, classes the smallest whole numbers that hold them, normals halves.

    A batch of twelve at 448 x 448 with PASCAL-Context's four tasks takes 29 MB instead of 116.
    `peft_dense.data.on_device` makes images floats again; tasks read labels of any type.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every map

    Example:
        >>> item = {"image": torch.ones(3, 2, 2), "sal": torch.ones(2, 2, dtype=torch.int64)}
        >>> {name: value.dtype for name, value in Pack()(item).items()}
        {'image': torch.uint8, 'sal': torch.uint8}
    """

    takes_bytes = treats_bytes = True

    def __call__(self, item: Item) -> Item:
        """Pack one item."""
        packed = {n: self._one(n, v, item) for n, v in item.items() if is_map(n, v)}
        return {**item, **packed}

    @staticmethod
    def _one(name: str, value: Tensor, item: Item) -> Tensor:
        if name == "image":
            floats = value.is_floating_point()
            return (value * 255).round_().clamp_(0, 255).to(torch.uint8) if floats else value
        kind = label_kind(name, item)
        if kind.counted and not value.is_floating_point():
            return value.to(torch.uint8 if kind.ignore <= 255 else torch.int32)
        return value.half() if kind.name == "normals" else value


class Unpack:
    """Make an image of bytes floats in 0..1, and classes int64.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every map

    Example:
        >>> Unpack()({"image": torch.full((1, 1, 1), 255, dtype=torch.uint8)})["image"].item()
        1.0
    """

    takes_bytes = treats_bytes = True

    def __call__(self, item: Item) -> Item:
        """Unpack one item."""
        return {**item, **{n: self._one(n, v) for n, v in item.items() if is_map(n, v)}}

    @staticmethod
    def _one(name: str, value: Any) -> Tensor:
        if name == "image":
            floats: Tensor = value.float() / 255 if value.dtype == torch.uint8 else value
            return floats
        whole: Tensor = value if value.is_floating_point() else value.long()
        return whole.float() if whole.dtype == torch.float16 else whole
