"""Deterministic moves of a whole item: resize, flip, rotate."""

from __future__ import annotations

from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from peft_dense.data.labels import Item
from peft_dense.data.transforms.joint import move_each

__all__ = ["flip", "resize", "rotate"]


def resize(item: Item, height: int, width: int) -> Item:
    """Resample image and labels to one size: bilinear with antialiasing, and nearest.

    Args:
        item: An item of a data set; ``meta`` is passed on as it is.
        height: Rows wanted.
        width: Columns wanted.

    Shape:
        ``(..., H, W) -> (..., height, width)`` for every map

    Example:
        >>> import torch
        >>> item = {"image": torch.rand(3, 8, 8), "sal": torch.ones(8, 8, dtype=torch.int64)}
        >>> resize(item, 4, 6)["sal"].shape
        torch.Size([4, 6])
    """
    return move_each(lambda entry: F.resize(entry, [height, width]), item)


def flip(item: Item) -> Item:
    """Mirror image and labels left to right; the x of valid normals changes its sign.

    Args:
        item: Image and labels.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every map

    Example:
        >>> import torch
        >>> facing_right = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        >>> flip({"normals": facing_right})["normals"].flatten().tolist()
        [-1.0, 0.0, 0.0]
    """
    return move_each(F.horizontal_flip, item)


def rotate(item: Item, degrees: float) -> Item:
    """Turn image and labels counter-clockwise about the centre: bilinear, and nearest.

    The (x, y) of valid normals turns along. The size stays; corners are black in the image, and in
    labels what ``item["meta"]["padding"]`` says.

    Args:
        item: Image and labels.
        degrees: The angle.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every map

    Example:
        >>> import torch
        >>> facing_right = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        >>> rotate({"normals": facing_right}, 90)["normals"].flatten().round().tolist()
        [0.0, 1.0, 0.0]
    """
    return move_each(lambda entry: F.rotate(entry, degrees, InterpolationMode.BILINEAR), item)
