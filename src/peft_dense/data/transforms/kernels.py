"""How labels follow each geometric function of torchvision, registered by importing this file.

Every function below takes a label's values and the value for pixels beyond the image, and returns
the sampled values and the motion. The caller's ``fill`` and ``interpolation`` hold for the image
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image, Mask

from peft_dense.data.transforms.map_types import Label, Motion
from peft_dense.errors import HyperparameterError

__all__: list[str] = []

_Moved = tuple[Tensor, Motion]


def _kernel(functional: Any) -> Callable[[Callable[..., _Moved]], Callable[..., _Moved]]:
    """Register how every kind of label follows a function of torchvision."""

    def register(move: Callable[..., _Moved]) -> Callable[..., _Moved]:
        def kernel(label: Label, *args: Any, **options: Any) -> Label:
            sampled, motion = move(label.as_subclass(Tensor), label.empty, *args, **options)
            try:
                return label.after(motion, sampled)
            except HyperparameterError as error:
                raise HyperparameterError(
                    f"{functional.__name__} can't be used: {error}. Take another transform "
                    "(RandomScaleCrop zooms, RandomRotation turns), or leave that label out."
                ) from None

        F.register_kernel(functional, Label)(kernel)
        return move

    return register


@_kernel(F.horizontal_flip)
def _horizontal_flip(values: Tensor, empty: int) -> _Moved:
    return values.flip(-1), Motion(turn=((-1, 0), (0, 1)))


@_kernel(F.vertical_flip)
def _vertical_flip(values: Tensor, empty: int) -> _Moved:
    return values.flip(-2), Motion(turn=((1, 0), (0, -1)))


@_kernel(F.rotate)
def _rotate(values: Tensor, empty: int, angle: float, **options: Any) -> _Moved:
    rotated = F.rotate(Mask(values), angle, **{**options, "fill": empty})
    return _plain(rotated), Motion.rotation(angle)


@_kernel(F.affine)
def _affine(values: Tensor, empty: int, **options: Any) -> _Moved:
    motion = Motion.rotation(-options["angle"], options["scale"])  # clockwise, unlike rotate's
    if torch.tensor(options["shear"]).any():
        motion = motion._replace(turn=None)
    return _plain(F.affine(Mask(values), **{**options, "fill": empty})), motion


@_kernel(F.perspective)
def _perspective(values: Tensor, empty: int, *args: Any, **options: Any) -> _Moved:
    warped = F.perspective(Mask(values), *args, **{**options, "fill": empty})
    return _plain(warped), Motion(turn=None, zoom=None)


@_kernel(F.elastic)
def _elastic(values: Tensor, empty: int, *args: Any, **options: Any) -> _Moved:
    warped = F.elastic(Mask(values), *args, **{**options, "fill": empty})
    return _plain(warped), Motion(turn=None, zoom=None)


@_kernel(F.resize)
def _resize(
    values: Tensor, empty: int, size: Sequence[int], *, max_size: int | None = None, **options: Any
) -> _Moved:
    """Take the pixel whose centre is nearest; torchvision's own masks lie half a pixel off."""
    maps = Image(values)  # adds the channel that torchvision's resizing needs
    small = F.resize(maps, size, InterpolationMode.NEAREST_EXACT, max_size, antialias=False)
    return _plain(small).reshape(*values.shape[:-2], *small.shape[-2:]), Motion()


@_kernel(F.pad)
def _pad(
    values: Tensor, empty: int, padding: Any, fill: Any = None, padding_mode: str = "constant"
) -> _Moved:
    mirrors = padding_mode in ("reflect", "symmetric")
    padded = F.pad(Mask(values), padding, empty, padding_mode)
    return _plain(padded), Motion(turn=None) if mirrors else Motion()


@_kernel(F.crop)
def _crop(values: Tensor, empty: int, **window: int) -> _Moved:
    return _within(F.crop, values, empty, **window), Motion()


@_kernel(F.center_crop)
def _center_crop(values: Tensor, empty: int, output_size: Any) -> _Moved:
    return _within(F.center_crop, values, empty, output_size), Motion()


@_kernel(F.resized_crop)
def _resized_crop(
    values: Tensor, empty: int, top: int, left: int, height: int, width: int, size: Any, **_: Any
) -> _Moved:
    window, _motion = _crop(values, empty, top=top, left=left, height=height, width=width)
    # Whether things now look larger depends on the frame that one compares with.
    return _resize(window, empty, size)[0], Motion(zoom=None)


def _within(functional: Any, values: Tensor, empty: int, *args: Any, **options: Any) -> Tensor:
    """Apply a function that can reach beyond the image and pads with 0 there."""
    moved = _plain(functional(Mask(values), *args, **options))
    if empty == 0:
        return moved
    reached = functional(Mask(torch.ones_like(values, dtype=torch.bool)), *args, **options)
    return moved.masked_fill(~_plain(reached), empty)


def _plain(values: Any) -> Tensor:
    tensor: Tensor = values.as_subclass(Tensor)
    return tensor
