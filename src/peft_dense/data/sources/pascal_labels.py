"""Decode the label files of the multi-task PASCAL-Context archive (human parts: `pascal_parts`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peft_dense.data.labels import IGNORE, Array, as_label, read_array
from peft_dense.data.sources.matfile import load_mat
from peft_dense.errors import DataError
from peft_dense.tasks.boundaries import thin

__all__ = ["NORMALS_IDS", "VERSION", "coded_normals", "edges", "has_normals", "sal", "semseg"]

VERSION = 1
"""Version of what is computed from .mat files; raise it when the same file gives another result."""

# fmt: off
NORMALS_IDS = (
    3, 4, 6, 9, 10, 11, 13, 15, 17, 18, 22, 23, 29, 30, 33, 34, 36, 37, 38, 39, 41, 43, 46, 49, 50,
    51, 53, 55, 56, 59, 61, 62, 65, 66, 68, 69, 72, 73, 78, 83, 84, 85, 87, 88, 95, 96, 101, 104,
    105, 107, 111, 113, 115, 122, 124, 135, 141, 142, 143, 146, 150, 154, 157, 158, 159, 165, 172,
    174, 181, 183, 184, 191, 193, 195, 197, 199, 202, 213, 215, 216, 219, 220, 223, 225, 228, 230,
    232, 233, 238, 239, 242, 243, 246, 250, 251, 252, 255, 260, 261, 263, 269, 272, 273, 275, 281,
    283, 284, 285, 286, 287, 288, 290, 291, 292, 293, 295, 304, 307, 309, 310, 314, 315, 319, 323,
    329, 330, 331, 336, 342, 345, 349, 350, 351, 352, 355, 357, 368, 370, 371, 374, 379, 380, 383,
    384, 397, 401, 403, 405, 407, 408, 411, 412, 413, 414, 417, 419, 421, 423, 427, 429, 430, 432,
    440, 441, 442, 443, 444, 446, 454, 457,
)
"""The 170 ids of PASCAL-Context's 459 classes on which normals count: those that the class list of
NYUD also names (its 894 names, without "unknown"), and tvmonitor (427). The normals were made by a
network that was trained on NYUD."""
# fmt: on


def semseg(path: Path) -> Tensor:
    """Read classes, ``(H, W)`` int64: 0 to 20 in VOC's order, 255 ignored.

    Raises:
        DataError: If the file can't be read or holds anything else.
    """
    label = as_label(read_array(path), "semseg", path)
    strange = set(label[(label > 20) & (label != IGNORE)].tolist())
    if strange:
        found = ", ".join(map(str, sorted(strange)[:5]))
        raise DataError(f"{path} holds {found}; classes are 0 to 20, {IGNORE} where ignored.")
    return label


def sal(path: Path) -> Tensor:
    """Read saliency, ``(H, W)`` int64: 1 where a grey value is over half of 255.

    Raises:
        DataError: If the file can't be read or isn't an 8-bit image.
    """
    # A palette image gives its colours here, not its indices.
    grey = read_array(path, mode="L", of=("L", "RGB", "RGBA", "LA", "P", "1"))
    return torch.from_numpy((grey > 127).astype(np.int64))


def coded_normals(path: Path) -> Array:
    """Read normals ``(H, W, 3)`` float32, 2 v / 255 - 1 of each channel, of any length.

    Raises:
        DataError: If the file can't be read or isn't 8-bit RGB.
    """
    pixels = read_array(path, mode="RGB", of=("RGB", "RGBA"))
    normals: Array = pixels.astype(np.float32) / 127.5 - 1
    return normals


def has_normals(path: Path) -> Array:
    """Mark where normals count, ``(H, W)`` uint8: on `NORMALS_IDS` of a .mat file's LabelMap.

    Raises:
        DataError: If the file can't be read or has no such map.
    """
    return np.isin(_label_map(path), NORMALS_IDS).astype(np.uint8)


def edges(path: Path) -> Array:
    """Draw the borders between regions one pixel thin, ``(H, W)`` uint8, from a file's LabelMap.

    They are where the Laplacian of the ids (the four neighbours less four times the pixel; beyond
    the border the map is mirrored about its last pixel, as OpenCV does) isn't 0, thinned.

    Raises:
        DataError: If the file can't be read or has no such map.
    """
    ids = np.pad(_label_map(path), 1, mode="reflect")
    laplacian = ids[:-2, 1:-1] + ids[2:, 1:-1] + ids[1:-1, :-2] + ids[1:-1, 2:]
    laplacian -= 4 * ids[1:-1, 1:-1]
    return thin(laplacian != 0).astype(np.uint8)


def _label_map(path: Path) -> Array:
    ids: Array = as_label(np.asarray(load_mat(path, "LabelMap")), "semseg", path).numpy()
    return ids
