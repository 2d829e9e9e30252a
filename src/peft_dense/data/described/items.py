"""Any map-style data set, read by descriptions of its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.described.codings import make_coding
from peft_dense.data.described.place import declared_by
from peft_dense.data.described.schema import Description, TaskDescription
from peft_dense.data.images import as_picture, read_picture
from peft_dense.data.labels import Array, Item, blank_label, label_kind, read_array
from peft_dense.data.sources.finding import by
from peft_dense.data.sources.marks import foreground_among
from peft_dense.errors import DataError, LabelSizeError
from peft_dense.tasks.kinds import LabelKind

__all__ = ["DescribedItems"]

_LOOKED_AT = 64
"""How many masks are looked at to find what marks a pixel, where that isn't described."""


class DescribedItems(Dataset[Item]):
    """Make items from those of another data set: the Hub's, torchvision's, or your own.

    The other data set gives dicts or tuples of images and labels: Pillow's images, arrays
    ``(H, W)`` or ``(H, W, C)``, tensors ``(H, W)`` or ``(C, H, W)``, or paths of files. A label
    that is None is ignored. They are decoded as files are, by the same descriptions.

    Args:
        items: Anything with a length and items by index.
        tasks: By name, a description as ``[tasks.NAME]`` of a dense.toml has it, in which
            ``labels`` is the name of a column, or its place in a tuple. (The marks of masks that
            nothing describes are found by looking at 64 of them.)
        transform: Callable from item to item, for instance of `peft_dense.data.transforms`.
        image: The column, or the place in a tuple, of the image.
        white: What white is in images of 16 bits.

    Shape:
        ``image``: ``(C, H, W)``; labels: ``(H, W)``, and ``(C, H, W)`` of normals and depth

    Raises:
        DataError: If a description is wrong, or, on access, there is no such column, or a label
            holds what its description doesn't know.

    Example:
        >>> rows = [{"pixels": np.zeros((4, 6, 3), np.uint8), "roofs": np.eye(4, 6)}]
        >>> roofs = {"labels": "roofs", "kind": "binary"}
        >>> data = DescribedItems(rows, {"roofs": roofs}, image="pixels")
        >>> data[0]["image"].shape, int(data[0]["roofs"].sum())
        (torch.Size([3, 4, 6]), 4)
    """

    def __init__(
        self,
        items: Any,
        tasks: Mapping[str, Mapping[str, Any]],
        transform: Callable[[Item], Item] | None = None,
        *,
        image: str | int = "image",
        white: float = 65535,
    ) -> None:
        self.items, self.transform = items, transform
        self.image, self.white = image, white
        named = {
            name: {**each, "labels": str(each.get("labels", name))} for name, each in tasks.items()
        }
        how = Description.of({"images": "{id}", "tasks": named}, "the description of the columns")
        self.declared = declared_by(how)
        self.tasks = tuple(tasks)
        self._columns = {name: each.labels for name, each in how.tasks.items()}
        self._needs_unit = {
            name: each.unit is None and each.scale is None for name, each in how.tasks.items()
        }
        self._codings = {
            name: make_coding(
                name,
                self._in_metres(each, name),
                self.declared,
                how.source,
                lambda name=name: self._foreground(name),  # type: ignore[misc]
            )
            for name, each in how.tasks.items()
        }

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, of those tasks whose classes have names."""
        return self.declared.names

    @property
    def kinds(self) -> dict[str, LabelKind]:
        """What the labels of each task look like."""
        return {task: coding.kind for task, coding in self._codings.items()}

    def number_of_classes(self, task: str) -> int:
        """Give the described number of classes.

        Raises:
            DataError: If none is described.
        """
        number = self.declared.number(task)
        if number is None:
            raise DataError(
                f"the number of classes of {task} isn't known; give its description classes = "
                "[names], or their number."
            )
        return number

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Item:
        row = self.items[index]
        where = Path(f"item {index}")
        picture = self._picture(_column(row, self.image, where), where)
        as_bytes = getattr(self.transform, "takes_bytes", False)
        item: Item = {
            "image": picture if as_bytes or picture.is_floating_point() else picture / 255
        }
        item |= self._labels(row, where, (picture.shape[-2], picture.shape[-1]), as_bytes)
        return self.transform(item) if self.transform else item

    def labels(self, index: int) -> Item:
        """Read the labels of an item, and leave the transform out."""
        row, where = self.items[index], Path(f"item {index}")
        picture = self._picture(_column(row, self.image, where), where)
        return self._labels(row, where, (picture.shape[-2], picture.shape[-1]), False)

    # ------------------------------------------------------------------ one item

    def _labels(
        self, row: Any, where: Path, size: tuple[int, int], as_bytes: bool
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for task, coding in self._codings.items():
            place = Path(f"{where}, {self._columns[task]}")
            array = _array(_column(row, self._columns[task], where), coding.in_colours, place)
            if array is None:
                found[task] = blank_label(coding.kind, *size)
                continue
            if coding.kind.name == "depth" and self._needs_unit[task] and array.dtype.kind in "iu":
                raise DataError(
                    f"{place} holds depth in whole numbers; expected floats in metres, or a unit: "
                    f"give the description of {task} unit = 'mm', or scale = metres per 1."
                )
            label = coding.decode(array, place)
            if label.shape[-2:] != size:
                raise LabelSizeError(
                    f"{place} is {by(label.shape[-2:])}, its image {by(size)} (height x width). A "
                    "label has the size of its image: resample it, nearest."
                )
            found[task] = label.long() if coding.kind.counted and not as_bytes else label
        about: dict[str, Any] = {"id": where.name, "size": size}
        own = {task: kind for task, kind in self.kinds.items() if kind != label_kind(task)}
        return {**found, "meta": {**about, "kinds": own} if own else about}

    def _picture(self, value: Any, where: Path) -> Tensor:
        if isinstance(value, (str, Path)):
            return read_picture(Path(value), white=self.white).pixels
        if isinstance(value, Image.Image) and value.mode not in ("F", "I", "I;16"):
            value = value.convert("RGB")
        array = _array(value, False, where)
        if array is None:
            raise DataError(f"{where} has no image: {self.image!r} is None.")
        pixels = as_picture(array, str(where), white=self.white).pixels
        return pixels.expand(3, -1, -1) if len(pixels) == 1 else pixels

    # ------------------------------------------------------------------ opening

    def _in_metres(self, how: TaskDescription, name: str) -> TaskDescription:
        """Take depth without a unit for metres; whole numbers are refused on access."""
        depth = how.labels_of(name).name == "depth"
        return replace(how, unit="m") if depth and self._needs_unit[name] else how

    def _foreground(self, task: str) -> int:
        step = -(-len(self.items) // _LOOKED_AT) or 1
        column = self._columns[task]
        rows = (self.items[index] for index in range(0, len(self.items), step))
        return foreground_among(
            _array(_column(row, column, Path(task)), False, Path(task)) for row in rows
        )


def _column(row: Any, name: str | int, where: Path) -> Any:
    """Take a column of a dict, or a place of a tuple."""
    try:
        return row[name] if isinstance(row, Mapping) else row[int(name)]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        there = ", ".join(map(repr, row)) if isinstance(row, Mapping) else f"{type(row).__name__}"
        raise DataError(f"{where} has no {name!r}; it has {there}.") from error


def _array(value: Any, colours: bool, where: Path) -> Array | None:
    """Make an array of an image, a tensor, an array or a path."""
    if value is None:
        return None
    if isinstance(value, (str, Path)):
        return read_array(Path(value), "RGB" if colours else None)
    if isinstance(value, Image.Image):
        return np.asarray(value.convert("RGB") if colours else value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.movedim(0, -1) if value.ndim == 3 else value).numpy()
    array: Array = np.asarray(value)
    if array.dtype.kind not in "buif":
        raise DataError(
            f"{where} holds {type(value).__name__}; expected an image, an array, a tensor or the "
            "path of a file."
        )
    return array
