"""Colour, and the usual augmentation of dense prediction in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torchvision.transforms import v2

from peft_dense.data.labels import Item
from peft_dense.data.transforms.joint import Compose, jointly
from peft_dense.data.transforms.packing import Pack, Unpack
from peft_dense.data.transforms.warp import RandomWarp
from peft_dense.errors import HyperparameterError

__all__ = ["ColorJitter", "augmentation"]


class ColorJitter:
    """Change the colours of the image at random, in random order; labels stay as they are.

    Args:
        brightness: A factor is drawn from 1 - b to 1 + b, or from a given pair.
        contrast: As brightness.
        saturation: As brightness.
        hue: A shift is drawn from -h to h, h at most 0.5, or from a given pair.

    Raises:
        HyperparameterError: If one of them is out of range.

    Example:
        >>> import torch
        >>> item = {"image": torch.rand(3, 4, 4), "sal": torch.ones(4, 4, dtype=torch.int64)}
        >>> jittered = ColorJitter(brightness=0.4, hue=0.1)(item)
        >>> torch.equal(jittered["image"], item["image"]), jittered["sal"].unique().tolist()
        (False, [1])
    """

    treats_bytes = True

    def __init__(
        self,
        brightness: float | tuple[float, float] = 0,
        contrast: float | tuple[float, float] = 0,
        saturation: float | tuple[float, float] = 0,
        hue: float | tuple[float, float] = 0,
    ) -> None:
        try:
            self.jitter = v2.ColorJitter(brightness, contrast, saturation, hue)
        except (TypeError, ValueError) as error:
            raise HyperparameterError(
                f"{brightness=}, {contrast=}, {saturation=}, {hue=}: expected numbers from 0, or "
                f"pairs smallest <= largest; hue at most 0.5. ({error})"
            ) from error

    def __call__(self, item: Item) -> Item:
        """Change the image of one item."""
        channels = item["image"].shape[-3]
        if channels not in (1, 3):
            raise HyperparameterError(
                f"ColorJitter changes the colours of 1 or 3 channels; an image has {channels}. "
                "Leave it out (colour=0)."
            )
        return jointly(self.jitter, item)


def augmentation(
    size: Sequence[int],
    *,
    scale: tuple[float, float] = (0.75, 1.25),
    rotation: float = 0,
    colour: float = 0,
    flip: float = 0.5,
    as_bytes: bool = False,
) -> Compose:
    """Compose the usual training transform: rotate, scale and crop, mirror, change colours.

    Rotation comes first, at the native proportions, where an angle is an angle; it is one
    resampling with all that moves the image (`RandomWarp`).

    Args:
        size: Height and width of the result.
        scale: Smallest and largest zoom (`RandomScaleCrop`).
        rotation: Largest angle in degrees, either way; 0: none.
        colour: Strength of `ColorJitter`, of the hue a quarter of it; 0: none.
        flip: Probability of being mirrored.
        as_bytes: Give items as bytes, for `on_device` to make floats of (`Pack`).

    Raises:
        HyperparameterError: If one of them is out of range.

    Example:
        >>> train = augmentation((4, 4), rotation=10, colour=0.4)
        >>> [type(transform).__name__ for transform in train.transforms]
        ['RandomWarp', 'ColorJitter', 'Unpack']
    """
    steps: list[Callable[[Any], Any]] = [RandomWarp(size, scale, rotation, flip)]
    if colour:
        steps.append(ColorJitter(colour, colour, colour, colour / 4))
    return Compose(*steps, Pack() if as_bytes else Unpack())
