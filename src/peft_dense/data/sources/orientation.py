"""Labels of images with an EXIF orientation: turned along, or refused where it is unclear."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from peft_dense.data.images import Picture
from peft_dense.errors import DataError
from peft_dense.tasks.kinds import LabelKind

__all__ = ["as_shown"]

_SWAPS = (5, 6, 7, 8)


def as_shown(
    label: Tensor, kind: LabelKind, picture: Picture, path: Path, image: Path, drawn_on: str | None
) -> Tensor:
    """Give a label of a turned image as the image is shown.

    A label file seldom carries an orientation. If it was drawn on the picture as it is shown, it
    has that size already; if it was drawn on the stored pixels, it turns along. The size tells
    which, unless both sizes are the same.

    Args:
        label: As its file stores it.
        kind: Of labels.
        picture: The image.
        path: The label's file.
        image: The image's file.
        drawn_on: ``shown`` or ``stored`` where that is known.

    Shape:
        ``(..., H, W) -> (..., H, W)`` or, turned, ``(..., W, H)``

    Raises:
        DataError: If neither ``drawn_on`` nor the size tells.
    """
    size = tuple(label.shape[-2:])
    if drawn_on is None:
        if picture.stored == picture.size == size:
            raise DataError(
                f"{image} carries EXIF orientation {picture.orientation}, and {path} doesn't say "
                "whether it was drawn on the picture as it is shown or as it is stored; its size "
                "fits both. Pass DenseFolder(..., drawn_on='shown') or 'stored' (in a dense.toml "
                "under [images]), or save the image as it is shown (PIL.ImageOps.exif_transpose)."
            )
        drawn_on = "stored" if size == picture.stored else "shown"
    return _turn(label, kind, picture.orientation) if drawn_on == "stored" else label


def _turn(label: Tensor, kind: LabelKind, orientation: int) -> Tensor:
    """Turn pixels as `peft_dense.data.images.turned` does, and the x and y of normals with them."""
    vectors = kind.name == "normals"
    if orientation in _SWAPS:
        label = label.transpose(-1, -2)
        if vectors:  # mirrored about the falling diagonal: right becomes down
            label = _mix(label, ((0, -1), (-1, 0)))
    if orientation in (2, 3, 6, 7):
        label = label.flip(-1)
        if vectors:
            label = _mix(label, ((-1, 0), (0, 1)))
    if orientation in (3, 4, 7, 8):
        label = label.flip(-2)
        if vectors:
            label = _mix(label, ((1, 0), (0, -1)))
    return label.contiguous()


def _mix(normals: Tensor, turn: tuple[tuple[int, int], tuple[int, int]]) -> Tensor:
    plane = normals[:2]
    turned = torch.einsum("ij,jhw->ihw", torch.tensor(turn, dtype=plane.dtype), plane)
    ignored = (normals == 255).all(0)
    return torch.where(ignored, normals, torch.cat([turned, normals[2:]]))
