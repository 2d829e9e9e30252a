"""Kinds of labels: the shape, the dtype, and the value of a pixel without a label.

Data sets and transforms treat labels by their kind, whatever the task is called. The library's own
tasks have a kind by name; yours is given one.

================  ==================================  =================  ====================
kind              in memory                           unlabelled pixel   tasks by that name
================  ==================================  =================  ====================
``segmentation``  ``(H, W)`` int64, class             255 (see below)    semseg, human_parts
``binary``        ``(H, W)`` int64, 0 or 1            255                sal
``edge``          ``(H, W)`` int64, 0 or 1            255                edge
``depth``         ``(1, H, W)`` float32 metres        0                  depth
``normals``       ``(3, H, W)`` float32 unit vectors  255 on 3 channels  normals
================  ==================================  =================  ====================

With more than 255 classes, 255 is a class like others, and 65535 marks a pixel without a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from peft_dense.errors import UnknownNameError

__all__ = ["IGNORE", "IGNORE_MANY", "KINDS", "LabelKind", "kind"]

IGNORE = 255
"""The value of a pixel that neither trains nor scores a task (depth uses 0)."""

IGNORE_MANY = 65535
"""The same where there are more than 255 classes."""


@dataclass(frozen=True)
class LabelKind:
    """Describe labels of one kind in memory.

    Args:
        name: Name of the kind.
        channels: Axes before height and width.
        dtype: Of the tensor.
        ignore: The value of a pixel without a label, on every channel.

    Example:
        >>> KINDS["depth"].blank(2, 3).tolist()
        [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
    """

    name: str
    channels: tuple[int, ...] = ()
    dtype: torch.dtype = torch.int64
    ignore: int = IGNORE

    @property
    def marks(self) -> bool:
        """Whether pixels are marked or not, 1 or 0."""
        return self.name in ("binary", "edge")

    @property
    def counted(self) -> bool:
        """Whether values are whole numbers: classes or marks."""
        return not self.channels

    def blank(self, height: int, width: int) -> Tensor:
        """Make a label in which every pixel is ignored.

        Shape:
            ``(channels, H, W)``
        """
        return torch.full((*self.channels, height, width), self.ignore, dtype=self.dtype)


KINDS: Mapping[str, LabelKind] = {
    "segmentation": LabelKind("segmentation"),
    "binary": LabelKind("binary"),
    "edge": LabelKind("edge"),
    "depth": LabelKind("depth", (1,), torch.float32, 0),
    "normals": LabelKind("normals", (3,), torch.float32),
}
"""All kinds by name."""


def kind(name: str, classes: int = 0) -> LabelKind:
    """Give a kind by its name.

    Args:
        name: One of `KINDS`.
        classes: How many classes there are, where that is known.

    Raises:
        UnknownNameError: If there is no such kind.

    Example:
        >>> kind("segmentation").ignore, kind("segmentation", classes=300).ignore
        (255, 65535)
    """
    if name not in KINDS:
        raise UnknownNameError.of("kind of labels", name, KINDS)
    found = KINDS[name]
    return replace(found, ignore=IGNORE_MANY) if _many(found, classes) else found


def _many(found: LabelKind, classes: int) -> bool:
    return found.name == "segmentation" and classes > IGNORE
