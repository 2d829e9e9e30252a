"""A data set held in memory, so that what is slow to read or render is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.data import Dataset

from peft_dense.data.labels import Item

__all__ = ["Cached"]


class Cached(Dataset[Item]):
    """Read every item once and keep it in memory; the transform runs anew on each access.

    Images are kept as bytes, as image files hold them, and so are class labels; a 384 x 256 photo
    with four class labels takes 0.7 MB. Each access gives tensors of its own.

    Args:
        items: What to read, such as a `DenseFolder` without a transform. Passing it through a
            progress bar shows how far the reading is.
        transform: Callable from item to item.

    Example:
        >>> from peft_dense.data import RandomFlip, Scenes
        >>> scenes = Scenes(2, size=(24, 32), tasks=["depth"])
        >>> data = Cached((scenes[i] for i in range(len(scenes))), transform=RandomFlip())
        >>> len(data), data[1]["depth"].shape
        (2, torch.Size([1, 24, 32]))
    """

    def __init__(
        self, items: Iterable[Item], transform: Callable[[Item], Item] | None = None
    ) -> None:
        self.transform = transform
        self.items = [{name: _pack(name, v) for name, v in item.items()} for item in items]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        item = {name: _unpack(name, value) for name, value in self.items[index].items()}
        return self.transform(item) if self.transform else item


def _pack(name: str, value: Any) -> Any:
    if name == "image":
        return (value * 255).round().byte()
    if name != "meta" and value.dtype == torch.int64 and 0 <= value.min() <= value.max() <= 255:
        return value.byte()
    return value


def _unpack(name: str, value: Any) -> Any:
    if name == "image":
        return value.float() / 255
    if name == "meta":
        return value
    return value.long() if value.dtype == torch.uint8 else value.clone()
