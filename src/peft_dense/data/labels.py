"""How labels are stored on disk, by their kind, and how they are read.

================  ==============================================================================
kind              on disk
================  ==============================================================================
``segmentation``  .png, .tif, .bmp or .npy of classes, 255 ignored; beyond 255 classes of 16 bits or
                  more, 65535 ignored
``binary``,       the same of 0 and 1, 255 ignored; or of 0 and 255, where 255 is a mark and nothing
``edge``          is ignored (`peft_dense.data.sources.marks`)
``depth``         .npy in metres, or a 16-bit .png or .tif in millimetres; 0 ignored
``normals``       .npy (H, W, 3), or an RGB .png holding ``255 (n + 1) / 2``
================  ==============================================================================

`peft_dense.tasks.kinds` says what they look like in memory. Normals are also ignored where a PNG is
all 0 or all 255 and where they have no direction (NaN, or a length near zero); depth is ignored
where it isn't finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from peft_dense.errors import DataError, MissingFileError
from peft_dense.tasks.kinds import IGNORE, LabelKind
from peft_dense.tasks.registry import kind_of_labels

__all__ = [
    "IGNORE",
    "Item",
    "as_label",
    "blank_label",
    "ignored_value",
    "label_kind",
    "read_array",
    "read_label",
    "unit_normals",
    "unreadable",
]

Array = np.ndarray[Any, Any]

Item = dict[str, Any]
"""One example: ``image``, one entry per task, and ``meta``."""


def label_kind(task: str | LabelKind, item: Item | None = None) -> LabelKind:
    """Give the kind of a task's labels, by the item that holds them or by the task's name.

    ``item["meta"]["kinds"]`` holds the kinds of tasks that aren't registered. Labels of an unknown
    name are maps of classes.

    Example:
        >>> label_kind("sal").name, label_kind("roofs").name
        ('binary', 'segmentation')
    """
    if isinstance(task, LabelKind):
        return task
    told: dict[str, LabelKind] = (item or {}).get("meta", {}).get("kinds", {})
    return told[task] if task in told else kind_of_labels(task)


def ignored_value(task: str | LabelKind) -> int:
    """Give the value that marks a pixel of ``task`` as unlabelled.

    Example:
        >>> ignored_value("semseg"), ignored_value("depth")
        (255, 0)
    """
    return label_kind(task).ignore


def blank_label(task: str | LabelKind, height: int, width: int) -> Tensor:
    """Make a label in which every pixel is ignored, for an image that has none.

    Args:
        task: Name of the task, or the kind of its labels.
        height: Rows of the image.
        width: Columns of the image.

    Shape:
        ``(3, H, W)`` for normals, ``(1, H, W)`` for depth, else ``(H, W)``

    Example:
        >>> blank_label("edge", 2, 3).tolist()
        [[255, 255, 255], [255, 255, 255]]
        >>> blank_label("depth", 2, 3).shape
        torch.Size([1, 2, 3])
    """
    return label_kind(task).blank(height, width)


def read_label(path: Path, task: str | LabelKind) -> Tensor:
    """Read one label file into the tensor that ``task`` uses.

    Raises:
        DataError: If the file can't be read, or doesn't hold such a label.
    """
    return as_label(read_array(path), task, path)


def read_array(path: Path, mode: str | None = None, *, of: Sequence[str] = ()) -> Array:
    """Read an array from .npy, or the pixels of an image file; a palette image gives its indices.

    Args:
        path: The file.
        mode: Pillow's name of what the pixels of an image are converted to, such as ``RGB``.
        of: The modes that an image may have; all of them, if none is given.

    Raises:
        DataError: If the file can't be read, or is an image of another mode.
    """
    try:
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        with Image.open(path) as image:
            if of and image.mode not in of:
                raise DataError(f"{path} has pixels of mode {image.mode}; expected {of[0]}.")
            return np.asarray(image.convert(mode) if mode else image)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"can't read {path}: there is no such file.") from error
    except Exception as error:  # a damaged file makes Pillow and NumPy raise nearly anything
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """Build the error for a file that a reader fails on.

    Example:
        >>> unreadable(Path("a.png"), OSError("image file is truncated"))
        DataError("can't read a.png: image file is truncated. Is the file whole?")
    """
    said = str(error).rstrip(".") or type(error).__name__
    return DataError(f"can't read {path}: {said}. Is the file whole?")


def as_label(array: Array, task: str | LabelKind, path: Path, *, narrow: bool = False) -> Tensor:
    """Turn what a file holds into the tensor that ``task`` uses.

    Args:
        array: What was read.
        task: Name of the task, or the kind of its labels.
        path: Where it was read, for errors, and for the unit of depth.
        narrow: Leave classes of bytes as uint8; the caller makes them int64 later.

    Raises:
        DataError: If ``array`` isn't such a label.
    """
    kind = label_kind(task)
    if kind.name == "normals":
        return _decode_normals(array, path)
    if kind.name == "depth":
        return _decode_depth(array, path)
    classes = _decode_classes(array, path)
    return classes if narrow else classes.long()


def unit_normals(vectors: Array, valid: Array) -> Tensor:
    """Scale vectors to unit length; those that are not valid or have no direction are ignored.

    Shape:
        ``(H, W, 3), (H, W) -> (3, H, W)``

    Example:
        >>> vectors = np.array([[[0.0, 3.0, 4.0], [0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]])
        >>> unit_normals(vectors, np.array([[True, False, True]]))[:, 0].T
        tensor([[  0.0000,   0.6000,   0.8000],
                [255.0000, 255.0000, 255.0000],
                [255.0000, 255.0000, 255.0000]])
    """
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(vectors, -1, 0)))
    return _unit(planes.float().nan_to_num(posinf=0, neginf=0), torch.from_numpy(valid))


def _unit(planes: Tensor, valid: Tensor) -> Tensor:
    """Scale vectors ``(3, H, W)``, all finite, to unit length, in place."""
    x, y, z = planes
    length = (x * x).addcmul_(y, y).addcmul_(z, z).sqrt_()
    absent = (length < 0.1) | ~valid  # grey in a PNG: no direction left after rounding
    return planes.div_(length.clamp_(min=1e-6)).masked_fill_(absent, IGNORE)


def _decode_classes(array: Array, path: Path) -> Tensor:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} has shape {array.shape} of {array.dtype}; class labels are one channel, "
            "(H, W), of numbers."
        )
    if array.dtype == np.uint8:
        return torch.from_numpy(np.array(array))  # a copy, which can be written to
    with np.errstate(invalid="ignore"):  # what isn't finite differs from any whole number
        whole = array.astype(np.int64)
    if (whole != array).any() or (whole < 0).any():
        raise DataError(
            f"{path} holds {array.min()} to {array.max()}; classes are whole numbers from 0, "
            f"{IGNORE} where ignored."
        )
    return torch.from_numpy(whole)


def _decode_normals(array: Array, path: Path) -> Tensor:
    if array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"{path} has shape {array.shape}; normals have three channels, (H, W, 3).")
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))
    x, y, z = planes
    if planes.dtype == torch.uint8:
        valid = ((x & y & z) != IGNORE) & ((x | y | z) != 0)
        return _unit(planes.float().mul_(2 / 255).sub_(1), valid)
    valid = (x != IGNORE) | (y != IGNORE) | (z != IGNORE)
    return _unit(planes.float().nan_to_num(posinf=0, neginf=0), valid)


def _decode_depth(array: Array, path: Path) -> Tensor:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or array.dtype == np.uint8:
        raise DataError(
            f"{path} has shape {array.shape} of {array.dtype}; depth is one channel, a .npy in "
            "metres or a 16-bit PNG in millimetres."
        )
    metres = array.astype(np.float32) / (1 if path.suffix.lower() == ".npy" else 1000)
    metres = np.nan_to_num(metres, nan=0, posinf=0, neginf=0).clip(min=0)
    return torch.from_numpy(metres)[None]
