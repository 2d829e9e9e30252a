"""What a label looks like, in memory and on disk, and what marks a pixel that has none.

===========  ==================================  ==================  ==============================
task         in memory                           unlabelled pixel    on disk
===========  ==================================  ==================  ==============================
``normals``  ``(3, H, W)`` float32 unit vectors  255 on 3 channels   .npy (H, W, 3), or an RGB .png
                                                                     holding ``255 (n + 1) / 2``
``depth``    ``(1, H, W)`` float32 metres        0                   .npy in metres, or a 16-bit
                                                                     .png in millimetres
any other    ``(H, W)`` int64, class or 0/1      255                 .png or .npy of the same
===========  ==================================  ==================  ==============================

On disk, normals are also ignored where a PNG is all 0 or all 255 and where they have no direction
(NaN, or a length near zero); depth is ignored where it isn't finite.
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

__all__ = [
    "IGNORE",
    "Item",
    "as_label",
    "blank_label",
    "ignored_value",
    "read_array",
    "read_image",
    "read_label",
    "unit_normals",
    "unreadable",
]

Array = np.ndarray[Any, Any]

IGNORE = 255
"""The value of a pixel that neither trains nor scores a task (depth uses 0)."""

Item = dict[str, Any]
"""One example: ``image``, one entry a task, and ``meta``."""


def ignored_value(task: str) -> int:
    """Give the value that marks a pixel of ``task`` as unlabelled.

    Example:
        >>> ignored_value("semseg"), ignored_value("depth")
        (255, 0)
    """
    return 0 if task == "depth" else IGNORE


def blank_label(task: str, height: int, width: int) -> Tensor:
    """Make a label in which every pixel is ignored, for an image that has none.

    Args:
        task: Name of the task; it decides shape, dtype and the ignored value.
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
    channels = {"normals": (3,), "depth": (1,)}.get(task, ())
    dtype = torch.float32 if channels else torch.int64
    return torch.full((*channels, height, width), ignored_value(task), dtype=dtype)


def read_image(path: Path) -> Tensor:
    """Read an image file into ``(3, H, W)`` float32, RGB in 0..1.

    Raises:
        DataError: If the file can't be read.
    """
    pixels = read_array(path, mode="RGB")
    return torch.from_numpy(pixels.astype(np.float32) / 255).movedim(-1, 0).contiguous()


def read_label(path: Path, task: str) -> Tensor:
    """Read one label file into the tensor that ``task`` uses (table above).

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
        if path.suffix == ".npy":
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


def as_label(array: Array, task: str, path: Path) -> Tensor:
    """Make what a file holds the tensor that ``task`` uses (table above).

    Args:
        array: What was read.
        task: Name of the task.
        path: Where it was read, for errors, and for the unit of depth.

    Raises:
        DataError: If ``array`` isn't such a label.
    """
    decode = {"normals": _decode_normals, "depth": _decode_depth}.get(task, _decode_classes)
    return decode(array, path)


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
    vectors = np.nan_to_num(vectors.astype(np.float32), posinf=0, neginf=0)
    length = np.linalg.norm(vectors, axis=-1)
    valid = valid & (length >= 0.1)  # grey in a PNG: no direction left after rounding
    unit = np.where(valid[..., None], vectors / np.maximum(length, 1e-6)[..., None], IGNORE)
    return torch.from_numpy(unit.astype(np.float32)).movedim(-1, 0).contiguous()


def _decode_classes(array: Array, path: Path) -> Tensor:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise DataError(
            f"{path} has shape {array.shape} of {array.dtype}; class labels are one channel, "
            "(H, W), of numbers."
        )
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
    absent = (array == IGNORE).all(-1)
    if array.dtype == np.uint8:
        absent |= (array == 0).all(-1)
        array = array / 255 * 2 - 1
    return unit_normals(array, ~absent)


def _decode_depth(array: Array, path: Path) -> Tensor:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim != 2 or array.dtype == np.uint8:
        raise DataError(
            f"{path} has shape {array.shape} of {array.dtype}; depth is one channel, a .npy in "
            "metres or a 16-bit PNG in millimetres."
        )
    metres = array.astype(np.float32) / (1000 if path.suffix == ".png" else 1)
    metres = np.nan_to_num(metres, nan=0, posinf=0, neginf=0).clip(min=0)
    return torch.from_numpy(metres)[None]
