"""Signs that labels are wrong as a whole: nothing marked, one class, depth in another unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Doubt", "Finding", "depth_doubt"]

Doubt = Literal["no label", "no positive", "one class", "depth unit", "undeclared", "unreadable"]
"""What looks wrong: no pixel has a label; none is marked; all have one class; metres look like
millimetres or the other way round; the number of classes isn't declared; a file can't be used."""

_FAR, _NEAR = 200, 0.1
_WHOLE = 100


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong with the labels of a task.

    Args:
        task: Its name; empty where it isn't known.
        what: What looks wrong.
        message: What was found, what was expected, and what to do.
        file: The label that shows it, if one does.
        serious: Whether training would learn or score nothing, or fail; else it may be intended.

    Example:
        >>> print(Finding("sal", "no positive", "no pixel is marked", Path("a.png")))
        a.png: no pixel is marked
    """

    task: str
    what: Doubt
    message: str
    file: Path | None = None
    serious: bool = True

    def __str__(self) -> str:
        """Give the message, after the file where it doesn't name it."""
        named = self.file is None or str(self.file) in self.message
        return self.message if named else f"{self.file}: {self.message}"


def depth_doubt(depth: Tensor) -> str | None:
    """Give the reason why depths may be in another unit, or None.

    Metres that are whole numbers beyond 100, or whose median is beyond 200, look like millimetres;
    metres all below 0.1 look like metres that were read as millimetres.

    Args:
        depth: Depths in metres of the pixels that have one.

    Shape:
        ``(N,) -> ()``

    Example:
        >>> depth_doubt(torch.tensor([2500.0, 1200.0]))
        'holds depths up to 2,500 m, all whole numbers; are they millimetres?'
        >>> depth_doubt(torch.tensor([2.5, 120.0])) is None
        True
    """
    if depth.numel() == 0:
        return None
    high = depth.max().item()
    if high > _WHOLE and torch.equal(depth, depth.round()):
        return f"holds depths up to {high:,.0f} m, all whole numbers; are they millimetres?"
    if depth.median().item() > _FAR:
        return f"holds depths of {depth.median().item():,.0f} m and more; are they in metres?"
    if high < _NEAR:
        return f"holds depths up to {high:g} m alone; were metres saved as if millimetres?"
    return None
