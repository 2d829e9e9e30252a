"""The usual augmentation of dense prediction in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from peft_dense.data.transforms.colour import ColorJitter
from peft_dense.data.transforms.joint import Compose
from peft_dense.data.transforms.packing import Pack, Unpack
from peft_dense.data.transforms.warp import RandomWarp

__all__ = ["augmentation"]


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
