"""The kind of map of each entry of an item: what fills its gaps, and what a motion does to it.

===================  =================  ==================  ====================================
entry                kind               a corner opened up  what a motion of the image does to it
===================  =================  ==================  ====================================
``image``            torchvision Image  black               interpolated
``normals``          `Normals`          255                 sampled; x and y turn along
``depth``            `Depth`            0                   sampled; divided by the zoom
any other            `Classes`          255                 sampled
any other, padded    `Background`       0                   sampled
with the background
===================  =================  ==================  ====================================

Sampled is nearest: each pixel of the result is one pixel of the source, so no class is invented
and nothing is mixed with an ignored neighbour.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torchvision.tv_tensors import Image, Mask, TVTensor

from peft_dense.data.labels import IGNORE, Item, label_kind
from peft_dense.errors import HyperparameterError, UnknownNameError
from peft_dense.tasks.kinds import IGNORE_MANY

__all__ = [
    "Background",
    "Classes",
    "Depth",
    "Label",
    "ManyClasses",
    "Motion",
    "Normals",
    "map_type",
]

Matrix = tuple[tuple[float, float], tuple[float, float]]

_STILL: Matrix = ((1, 0), (0, 1))


class Motion(NamedTuple):
    """How an image moved: what its labels' values need to know of it.

    Example:
        >>> Motion.rotation(90).turn[1][0]  # what pointed right points up
        1.0
    """

    turn: Matrix | None = _STILL
    """What (x, y) of a vector becomes, y up; None where it differs from pixel to pixel."""

    zoom: float | None = 1
    """How much larger things look in a frame that stays; None where that has no one answer."""

    @classmethod
    def rotation(cls, degrees: float, zoom: float = 1) -> Motion:
        """Rotate counter-clockwise."""
        a = math.radians(degrees)
        return cls(((math.cos(a), -math.sin(a)), (math.sin(a), math.cos(a))), zoom)


class Label(Mask):  # type: ignore[misc]
    """A map whose pixels are sampled; the base of every kind but the image.

    To torchvision it is a Mask, so that transforms which can't treat masks say so. How it follows
    each of torchvision's geometric functions is written in `peft_dense.data.transforms.kernels`.
    """

    empty: ClassVar[int] = IGNORE
    """The value of a pixel that the image doesn't reach."""

    def after(self, motion: Motion, sampled: Tensor | None = None) -> Label:
        """Give what pixels of this label hold after a motion.

        Args:
            motion: How the image moved.
            sampled: The pixels, where the motion took them; default: where they are.
        """
        values = self.as_subclass(Tensor) if sampled is None else sampled
        moved: Label = self._seen(values, motion).as_subclass(type(self))
        return moved

    @staticmethod
    def _seen(values: Tensor, motion: Motion) -> Tensor:
        return values


class Classes(Label):
    """A map of classes; corners are ignored."""


class Background(Classes):
    """A map of classes; corners are class 0."""

    empty = 0


class Normals(Label):
    """A map of unit vectors ``(3, H, W)``, x right, y up; corners are ignored."""

    @staticmethod
    def _seen(values: Tensor, motion: Motion) -> Tensor:
        if motion.turn is None:
            raise HyperparameterError("what it does to the direction of normals isn't known")
        if motion.turn == _STILL:
            return values
        x, y, z = values.unbind(-3)
        (xx, xy), (yx, yy) = motion.turn
        turned = torch.empty_like(values)
        torch.mul(x, xx, out=turned.select(-3, 0)).add_(y, alpha=xy)
        torch.mul(x, yx, out=turned.select(-3, 1)).add_(y, alpha=yy)
        turned.select(-3, 2).copy_(z)
        return turned.masked_fill_((x == IGNORE).unsqueeze(-3), IGNORE)


class Depth(Label):
    """A map of metres along the optical axis ``(1, H, W)``; corners are ignored."""

    empty = 0

    @staticmethod
    def _seen(values: Tensor, motion: Motion) -> Tensor:
        if motion.zoom is None:
            raise HyperparameterError("what it does to depth isn't known")
        return values if motion.zoom == 1 else values / motion.zoom


class ManyClasses(Classes):
    """A map of more than 255 classes; corners are ignored, with 65535."""

    empty = IGNORE_MANY


def map_type(name: str, item: Item) -> type[TVTensor]:
    """Give the type of an entry of an item for the transforms.

    ``item["meta"]["kinds"]`` has the kinds of tasks that aren't registered.
    ``item["meta"]["padding"]``, which the data set sets, is "ignore" (default) or "background". A
    label that is ignored everywhere is padded with the ignored value in either case.

    Raises:
        UnknownNameError: If the padding is neither of these.

    Example:
        >>> ones = torch.ones(4, 4, dtype=torch.int64)
        >>> item = {"semseg": ones, "sal": 255 * ones, "meta": {"padding": "background"}}
        >>> map_type("semseg", item).__name__, map_type("sal", item).__name__
        ('Background', 'Classes')
    """
    if name == "image":
        found: type[TVTensor] = Image
        return found
    kind = label_kind(name, item)
    if kind.name in ("normals", "depth"):
        return Normals if kind.name == "normals" else Depth
    padding = item.get("meta", {}).get("padding", "ignore")
    if padding not in ("ignore", "background"):
        raise UnknownNameError.of("padding", padding, ("ignore", "background"))
    if padding == "ignore" or bool((item[name] == kind.ignore).all()):
        return Classes if kind.ignore == IGNORE else ManyClasses
    return Background
