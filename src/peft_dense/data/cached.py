"""A data set held in memory, so that what is slow to read or render is done once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.labels import Item
from peft_dense.errors import DataError

__all__ = ["Cached"]

_KEPT_NAMES = ("tasks", "classes", "kinds", "ids", "split", "declared", "files", "white")
"""Attributes that are taken over from the data set."""


class Cached(Dataset[Item]):
    """Read every item once and keep it in memory; the transform runs anew on each access.

    Images of bytes are kept as bytes, and so are class labels; a 384 x 256 photo with four class
    labels takes 0.7 MB, a 12-megapixel one with normals and depth 230 MB. So ``budget`` is in
    bytes: once it is used up, the remaining items are read on each access. Each access gives
    tensors of its own.

    Args:
        items: What to read, such as a `DenseFolder` without a transform; a progress bar around it
            shows how far the reading is.
        transform: Callable from item to item.
        budget: Bytes that may be kept; None for no limit. With a limit, ``items`` must be a data
            set, or ``source`` given.
        source: The data set, where ``items`` only iterates over it.

    Shape:
        ``image``: ``(C, H, W)``; labels: ``(H, W)``, and ``(C, H, W)`` of normals and depth

    Raises:
        DataError: If the budget is used up and there is no data set to read the rest from.

    Example:
        >>> from peft_dense.data import RandomFlip, Scenes
        >>> scenes = Scenes(2, size=(24, 32), tasks=["depth"])
        >>> data = Cached(scenes, transform=RandomFlip())
        >>> len(data), data[1]["depth"].shape, data.nbytes
        (2, torch.Size([1, 24, 32]), 10752)
        >>> Cached(scenes, budget=6000).kept
        1
    """

    def __init__(
        self,
        items: Iterable[Item],
        transform: Callable[[Item], Item] | None = None,
        *,
        budget: int | None = None,
        source: Any = None,
    ) -> None:
        self.transform = transform
        self.source: Any = source if source is not None else items
        if not hasattr(self.source, "__getitem__"):
            self.source = None
        for name in _KEPT_NAMES:
            if hasattr(self.source, name):
                setattr(self, name, getattr(self.source, name))
        self.items: list[dict[str, Any]] = []
        self.nbytes = 0
        for item in _each(items):
            packed = {name: _pack(name, value) for name, value in item.items()}
            size = sum(value.nbytes for value in packed.values() if isinstance(value, Tensor))
            if budget is not None and self.nbytes + size > budget:
                self._needs_source(budget)
                break
            self.items.append(packed)
            self.nbytes += size

    @property
    def kept(self) -> int:
        """How many items are kept."""
        return len(self.items)

    def __len__(self) -> int:
        return len(self.items) if self.source is None else len(self.source)

    def __getitem__(self, index: int) -> Item:
        item = self._item(index, getattr(self.transform, "takes_bytes", False))
        return self.transform(item) if self.transform else item

    def labels(self, index: int) -> Item:
        """Give an item as it was read, whatever the transform."""
        return self._item(index)

    def _item(self, index: int, as_bytes: bool = False) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        if index >= len(self.items):
            item: Item = self.source[index]
            return item
        return {n: _unpack(n, v, as_bytes) for n, v in self.items[index].items()}

    def _needs_source(self, budget: int) -> None:
        if self.source is None:
            raise DataError(
                f"{len(self.items)} items fill the {budget:,} bytes that may be kept, and there is "
                "no data set to read the others from. Pass source=..., or a larger budget."
            )


def _each(items: Any) -> Iterator[Item]:
    """Run through items; a data set ends at its length."""
    if hasattr(items, "__iter__"):
        yield from items
    else:
        yield from (items[index] for index in range(len(items)))


def _pack(name: str, value: Any) -> Any:
    """Store as bytes what fits: images of 8 bits, classes up to 255."""
    if not isinstance(value, Tensor):
        return value
    if name == "image" and value.dtype != torch.uint8:
        coded = (value * 255).round()
        whole = coded.min() >= 0 and coded.max() <= 255
        return coded.byte() if whole and torch.equal(coded / 255, value) else value
    if value.dtype == torch.int64 and 0 <= value.min() <= value.max() <= 255:
        return value.byte()
    return value


def _unpack(name: str, value: Any, as_bytes: bool) -> Any:
    if not isinstance(value, Tensor):
        return value
    if name == "image" and value.dtype == torch.uint8:
        return value.clone() if as_bytes else value.float() / 255
    return value.long() if value.dtype == torch.uint8 else value.clone()
