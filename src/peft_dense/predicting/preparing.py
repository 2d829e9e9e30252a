"""Images prepared for the model exactly as in training's validation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from peft_dense.data.images import Picture
from peft_dense.data.transforms import Compose, Pack, Resize
from peft_dense.dense import DenseModel
from peft_dense.errors import DataError

__all__ = ["check_channels", "prepare", "to_size"]


def to_size(size: Sequence[int]) -> Compose:
    """Make the transform of validation: resampled to one size, rounded to bytes.

    Args:
        size: Height and width.

    Raises:
        HyperparameterError: ``size`` isn't two positive whole numbers.

    Example:
        >>> import torch
        >>> to_size((8, 12))({"image": torch.rand(3, 4, 4)})["image"].dtype
        torch.uint8
    """
    return Compose(Resize(size), Pack())


def prepare(picture: Picture, size: Sequence[int]) -> Tensor:
    """Resample an image to the size at which a model sees it, as bytes.

    Args:
        picture: As it was read.
        size: Height and width.

    Shape:
        ``(C, H, W) -> (C, *size)`` uint8

    Raises:
        HyperparameterError: ``size`` isn't two positive whole numbers.

    Example:
        >>> import torch
        >>> from peft_dense.data.images import Picture
        >>> picture = Picture(torch.zeros(3, 4, 6, dtype=torch.uint8), (4, 6))
        >>> prepare(picture, (8, 12)).shape
        torch.Size([3, 8, 12])
    """
    shown: Tensor = to_size(size)({"image": picture.floats()})["image"]
    return shown


def check_channels(picture: Picture, name: str, model: DenseModel) -> None:
    """Check that an image has the channels that a model was built for.

    Raises:
        DataError: It has others.
    """
    given, needed = picture.pixels.shape[0], model.encoder.info.in_channels
    if given == needed:
        return
    remedy = "save it as such; JPEG and PNG files are read as RGB, TIFF and .npy as they are"
    if needed == 3 and given == 1:
        remedy = "repeat its one channel three times"
    elif needed == 3 and given == 4:
        remedy = "leave its last channel, alpha, out"
    raise DataError(
        f"{name} has {given} channel{'s' * (given != 1)}; the model takes images of {needed}: "
        f"{remedy}."
    )
