"""Run torchvision's transforms on an item, so that image and labels move together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torchvision.tv_tensors import TVTensor

from peft_dense.data.labels import Item
from peft_dense.data.transforms import kernels as _taught  # noqa: F401  (labels' behaviour)
from peft_dense.data.transforms.map_types import map_type
from peft_dense.errors import HyperparameterError, ShapeError

__all__ = ["Compose", "check_sizes", "is_map", "jointly", "move_each"]


class Compose:
    """Apply transforms one after another: ours, torchvision's v2, or any callable.

    A module, which is what the transforms of ``torchvision.transforms.v2`` are, moves the image and
    every label with it (see `jointly`). Any other callable is given the item as it is.

    Args:
        transforms: Callables from item to item.

    Raises:
        HyperparameterError: If one of them can't be called.

    Example:
        >>> import torch
        >>> from torchvision.transforms import v2
        >>> from peft_dense.data import Resize
        >>> both = Compose(Resize((4, 4)), v2.RandomVerticalFlip(1.0), v2.GaussianBlur(3))
        >>> item = both({"image": torch.rand(3, 8, 8), "sal": torch.eye(8, dtype=torch.int64)})
        >>> item["image"].shape, item["sal"].tolist()[0]
        (torch.Size([3, 4, 4]), [0, 0, 0, 1])
    """

    def __init__(self, *transforms: Callable[[Any], Any]) -> None:
        for transform in transforms:
            if not callable(transform):
                raise HyperparameterError(
                    f"got a {type(transform).__name__} that can't be called; pass the transforms "
                    "one by one: Compose(Resize(size), RandomFlip())."
                )
        self.transforms = transforms
        # What a data set may hand in: bytes, if all treat them and the last says what comes out.
        treat = all(getattr(each, "treats_bytes", False) for each in transforms)
        self.takes_bytes: bool = treat and any(hasattr(t, "takes_bytes") for t in transforms[-1:])
        self.smallest: tuple[int, int] | None = getattr((*transforms, None)[0], "smallest", None)

    def __call__(self, item: Item) -> Item:
        """Transform one item."""
        for transform in self.transforms:
            module = isinstance(transform, nn.Module)  # ours are none: they call jointly themselves
            item = jointly(transform, item) if module else transform(item)
        return item


def jointly(transform: Callable[[dict[str, Any]], Mapping[str, Any]], item: Item) -> Item:
    """Call a torchvision v2 transform on an item, so that it treats each map by its kind.

    Photometric transforms change the image alone. Geometric ones sample the labels, fill corners as
    ``item["meta"]["padding"]`` says, and turn normals; one for which that isn't possible raises an
    error. Maps are the tensors of two dimensions or more outside ``meta``; all else is passed on.

    Args:
        transform: From a dict of torchvision's tensors to the same; it is given the maps alone.
        item: An item of plain tensors.

    Shape:
        ``(..., H, W) -> (..., H, W)`` for every map; a transform may change H and W

    Returns:
        A new item of plain tensors.

    Raises:
        ShapeError: If the maps differ in size, before or after.
        HyperparameterError: If a label can't follow the transform.

    Example:
        >>> import torch
        >>> from torchvision.transforms import v2
        >>> item = {"image": torch.rand(3, 2, 2), "sal": torch.tensor([[0, 1], [0, 1]])}
        >>> jointly(v2.RandomHorizontalFlip(1.0), item)["sal"].tolist()
        [[1, 0], [1, 0]]
        >>> jointly(v2.Pad(1, fill=0.5), item)["sal"][0].tolist()
        [255, 255, 255, 255]
    """
    maps = {name: value for name, value in item.items() if is_map(name, value)}
    if all(isinstance(value, TVTensor) for value in maps.values()):
        return {**item, **transform(maps)}  # ours, called inside one of torchvision's
    check_sizes(maps, "an item")
    typed = {name: value.as_subclass(map_type(name, item)) for name, value in maps.items()}
    moved = transform(typed)
    check_sizes(moved, f"after {transform}")
    return {**item, **{name: value.as_subclass(Tensor) for name, value in moved.items()}}


def move_each(move: Callable[[Any], Any], item: Item) -> Item:
    """Apply a function of torchvision's tensors, the same to every map of an item.

    Example:
        >>> import torch
        >>> from torchvision.transforms.v2 import functional as F
        >>> move_each(F.vertical_flip, {"sal": torch.tensor([[0], [1]])})["sal"].tolist()
        [[1], [0]]
    """
    return jointly(lambda maps: {name: move(value) for name, value in maps.items()}, item)


def is_map(name: str, value: Any) -> bool:
    """Whether an entry of an item is a map of the image: a tensor with rows and columns."""
    return name != "meta" and isinstance(value, Tensor) and value.ndim >= 2


def check_sizes(maps: Mapping[str, Any], when: str) -> None:
    """Raise unless maps are tensors of one height and width.

    Raises:
        ShapeError: If not; it names them.
    """
    sizes = {
        name: tuple(value.shape[-2:]) if isinstance(value, Tensor) else type(value).__name__
        for name, value in maps.items()
    }
    if len(set(sizes.values())) > 1 or str in map(type, sizes.values()):
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ShapeError(
            f"{when}: {found}; image and labels are tensors of one (height, width). What isn't a "
            "map of the image belongs in meta."
        )
