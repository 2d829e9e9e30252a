"""Human parts of PASCAL-Part: six parts out of the 24 that its files tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from peft_dense.data.labels import IGNORE, Array
from peft_dense.data.sources.matfile import field, load_mat, records, scalar
from peft_dense.errors import DataError

__all__ = ["PARTS", "PERSON", "human_parts"]

PERSON = 15
"""The class id of people in PASCAL VOC."""

_NAMES = {
    1: ("head", "hair", "lear", "rear", "leye", "reye", "lebrow", "rebrow", "nose", "mouth"),
    2: ("torso", "neck"),
    3: ("luarm", "ruarm"),
    4: ("llarm", "rlarm", "lhand", "rhand"),
    5: ("luleg", "ruleg"),
    6: ("llleg", "rlleg", "lfoot", "rfoot"),
}

PARTS = {name: index for index, names in _NAMES.items() for name in names}
"""The class of each of PASCAL-Part's parts of a person, 1 to 6 in the order of `HumanParts`."""


def human_parts(path: Path) -> Array:
    """Draw the six human parts that a file of PASCAL-Part holds.

    Parts are drawn in the order of the file, each over those before it. Objects that aren't people,
    and people without parts, add nothing.

    Args:
        path: A .mat file whose ``anno`` has the objects as its second field. An object is
            (name, class id, mask, parts), a part is (name, mask).

    Returns:
        ``(H, W)`` uint8, 0 where there is no part. If no person has a part, one pixel of 255: such
        a file need not hold anything as large as its image.

    Raises:
        DataError: If the file can't be read or doesn't hold such a struct.
    """
    anno = load_mat(path, "anno")
    try:
        parts = list(_parts_of_people(anno))
    except ValueError as error:
        raise DataError(
            f"{path} isn't a file of PASCAL-Part: {error}. Expected anno.objects of (class, "
            "class_ind, mask, parts), with parts of (part_name, mask)."
        ) from error
    if not parts:
        return np.full((1, 1), IGNORE, np.uint8)
    drawn = np.zeros(parts[0][1].shape, np.uint8)
    for name, mask in parts:
        if name not in PARTS:
            known = ", ".join(PARTS)
            raise DataError(f"{path} has a person's part {name!r}; expected one of {known}.")
        if mask.shape != drawn.shape:
            raise DataError(
                f"{path} has masks of shape {drawn.shape} and {mask.shape}; all masks of a file "
                "have the size of its image."
            )
        drawn[mask] = PARTS[name]
    return drawn


def _parts_of_people(anno: Any) -> Iterator[tuple[str, Array]]:
    """Give name and mask of each part of each person, in order."""
    (top,) = records(anno)
    for one in records(field(top, "objects", 1)):
        if scalar(field(one, "class_ind", 1)) == PERSON:
            for part in records(field(one, "parts", 3)):
                mask = np.asarray(field(part, "mask", 1))
                if mask.ndim != 2 or mask.dtype.kind not in "biuf":
                    raise ValueError(f"{mask.dtype} of shape {mask.shape} in the place of a mask")
                yield str(scalar(field(part, "part_name", 0))), mask != 0
