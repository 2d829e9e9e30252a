"""Batches: items stacked, moved to a device, and images made floats there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from peft_dense.data.labels import Item, blank_label
from peft_dense.data.sources.finding import by
from peft_dense.data.task_choice import names_of_tasks
from peft_dense.errors import DataError

__all__ = ["blank_item", "collate", "on_device"]


def collate(items: Sequence[Item]) -> Item:
    """Stack items into a batch; ``meta`` becomes a list, of empty dicts where items have none.

    Args:
        items: One item or more, with the same tasks.

    Shape:
        ``B`` times ``(..., H, W) -> (B, ..., H, W)`` for every entry

    Raises:
        DataError: If the images differ in size or channels.

    Example:
        >>> item = {"image": torch.rand(3, 4, 4), "meta": {"id": "a"}}
        >>> batch = collate([item, item])
        >>> batch["image"].shape, len(batch["meta"])
        (torch.Size([2, 3, 4, 4]), 2)
    """
    sizes = sorted({tuple(item["image"].shape[-2:]) for item in items})
    if len(sizes) > 1:
        raise DataError(
            f"images of {' and '.join(by(size) for size in sizes[:3])} (height x width) can't be "
            "stacked; give the data set transform=Resize((height, width)), or use batches of one."
        )
    channels = sorted({item["image"].shape[-3] for item in items if item["image"].ndim > 2})
    if len(channels) > 1:
        raise DataError(
            f"images of {' and '.join(map(str, channels))} channels can't be stacked; save all "
            "images of a data set with the same channels, as .npy (H, W, C) or as RGB files."
        )
    batch: Item = {
        name: torch.stack([item[name] for item in items]) for name in items[0] if name != "meta"
    }
    return {**batch, "meta": [item.get("meta", {}) for item in items]}


def on_device(batch: Item, device: torch.device | str) -> Item:
    """Move a batch to a device without waiting for it, and make images of bytes floats there.

    Labels keep their type: tasks read whole numbers of any. From pinned memory
    (``DataLoader(pin_memory=True)``) the copies run beside the computation.

    Args:
        batch: From `collate`; ``meta`` is passed on.
        device: Where to.

    Shape:
        ``(B, C, H, W)`` uint8 or float32 -> float32 in 0..1 for ``image``

    Example:
        >>> batch = {"image": torch.tensor([[[[0, 255]]]], dtype=torch.uint8), "meta": [{}]}
        >>> on_device(batch, "cpu")["image"]
        tensor([[[[0., 1.]]]])
    """
    moved: dict[str, Any] = {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
    if moved["image"].dtype == torch.uint8:
        moved["image"] = moved["image"].float() / 255
    return moved


def blank_item(data: Any, size: Sequence[int] = (32, 32), channels: int = 3) -> Item:
    """Make a black item without any label, in the place of one that can't be read.

    Args:
        data: A data set with ``tasks``, and ``kinds`` where their names don't tell.
        size: Height and width.
        channels: Of the image.

    Example:
        >>> from peft_dense.data import Scenes
        >>> blank_item(Scenes(1, tasks=["depth"]), (2, 2))["depth"].tolist()
        [[[0.0, 0.0], [0.0, 0.0]]]
    """
    kinds = getattr(data, "kinds", {})
    height, width = size
    item: Item = {"image": torch.zeros(channels, height, width)}
    item |= {
        task: blank_label(kinds.get(task, task), height, width) for task in names_of_tasks(data)
    }
    item["meta"] = {"id": "", "size": (height, width), "kinds": dict(kinds)}
    return item
