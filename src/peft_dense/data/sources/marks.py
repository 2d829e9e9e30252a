"""The value that marks a pixel in a folder of masks: 1 or 255."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from peft_dense.data.labels import IGNORE, Array, read_array
from peft_dense.errors import DataError

__all__ = ["decode_marks", "foreground_among", "foreground_of"]


def foreground_of(paths: Iterable[Path]) -> int:
    """Find the value that marks a pixel in a whole folder of masks.

    If all files hold 0 and 255 alone, as drawing programs save masks, 255 is a mark and nothing is
    ignored. If any file holds another value, 1 is a mark and 255 is ignored; files are read until
    one does. Files that can't be read are left out.

    Args:
        paths: All masks of the task, of all splits.

    Returns:
        1 or 255.
    """
    seen_255 = False
    files = iter(paths)
    with ThreadPoolExecutor(max_workers=4) as pool:
        while some := list(islice(files, 64)):  # the first ones often suffice
            for other, full in pool.map(_values, some):
                if other:
                    return 1
                seen_255 |= full
    return IGNORE if seen_255 else 1


def foreground_among(arrays: Iterable[Array | None]) -> int:
    """Find the value that marks a pixel among arrays, by the same rule.

    Example:
        >>> foreground_among([np.array([[0, 255]]), None]), foreground_among([np.array([[0, 1]])])
        (255, 1)
    """
    seen_255 = False
    for array in arrays:
        other, full = (False, False) if array is None else _held(array)
        if other:
            return 1
        seen_255 |= full
    return IGNORE if seen_255 else 1


def _values(path: Path) -> tuple[bool, bool]:
    """Whether a file holds another value than 0 and 255, and whether it holds 255."""
    try:
        return _held(read_array(path))
    except DataError:
        return False, False


def _held(array: Array) -> tuple[bool, bool]:
    if array.dtype == bool:
        return bool(array.any()), False
    full = array == IGNORE
    return bool(((array != 0) & ~full).any()), bool(full.any())


def decode_marks(array: Array, foreground: int, path: Path) -> Array:
    """Turn what a mask's file holds into 0, 1 and 255 (ignored).

    Args:
        array: What was read.
        foreground: The value that marks a pixel, from :func:`foreground_of`.
        path: Where it was read.

    Raises:
        DataError: If it holds anything else.

    Example:
        >>> decode_marks(np.array([[0, 255]]), 255, Path("a.png")).tolist()
        [[0, 1]]
        >>> decode_marks(np.array([[0, 255]]), 1, Path("a.png")).tolist()
        [[0, 255]]
    """
    if array.ndim == 2 and array.dtype.kind in "biuf":
        known = (array == 0) | (array == 1) | (array == IGNORE)
        if foreground == IGNORE:
            known = (array == 0) | (array == IGNORE)
        if not known.all():
            found = ", ".join(f"{value:g}" for value in np.unique(array[~known])[:5].tolist())
            raise DataError(
                f"{path} holds {found}; masks are of 0 and 1 with {IGNORE} ignored, or, if all "
                f"files of the task are, of 0 and {IGNORE}. Threshold soft ones, and save as PNG."
            )
        if foreground == IGNORE:
            marks: Array = (array == IGNORE).astype(np.uint8)
            return marks
    return array
