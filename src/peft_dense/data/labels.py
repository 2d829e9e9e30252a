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

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from peft_dense.errors import DataError

__all__ = ["IGNORE", "Item", "blank_label", "ignored_value", "read_image", "read_label"]

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
    pixels = _read(path, lambda: np.asarray(Image.open(path).convert("RGB")))
    return torch.from_numpy(pixels.astype(np.float32) / 255).movedim(-1, 0).contiguous()


def read_label(path: Path, task: str) -> Tensor:
    """Read one label file into the tensor that ``task`` uses (table above).

    Raises:
        DataError: If the file can't be read, or doesn't hold such a label.
    """
    array = _read(path, lambda: _load(path))
    decode = {"normals": _decode_normals, "depth": _decode_depth}.get(task, _decode_classes)
    return decode(array, path)


def _read(path: Path, read: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    try:
        return read()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"can't read {path}: {error}. Is the file whole?") from error


def _load(path: Path) -> np.ndarray[Any, Any]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    return np.asarray(Image.open(path))


def _decode_classes(array: np.ndarray[Any, Any], path: Path) -> Tensor:
    if array.ndim != 2:
        raise DataError(f"{path} has shape {array.shape}; class labels are one channel, (H, W).")
    whole = array.astype(np.int64)
    if (whole != array).any() or whole.min() < 0:
        raise DataError(
            f"{path} holds {array.min()} to {array.max()}; classes are whole numbers from 0, "
            f"{IGNORE} where ignored."
        )
    return torch.from_numpy(whole)


def _decode_normals(array: np.ndarray[Any, Any], path: Path) -> Tensor:
    if array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"{path} has shape {array.shape}; normals have three channels, (H, W, 3).")
    absent = (array == IGNORE).all(-1)
    if array.dtype == np.uint8:
        absent |= (array == 0).all(-1)
        array = array / 255 * 2 - 1
    array = np.nan_to_num(array.astype(np.float32), posinf=0, neginf=0)
    length = np.linalg.norm(array, axis=-1)
    absent |= length < 0.1  # grey in a PNG: no direction left after rounding
    unit = np.where(absent[..., None], IGNORE, array / np.maximum(length, 1e-6)[..., None])
    return torch.from_numpy(unit.astype(np.float32)).movedim(-1, 0).contiguous()


def _decode_depth(array: np.ndarray[Any, Any], path: Path) -> Tensor:
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
