"""Depth and normals: units, scales and axes become metres and vectors of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peft_dense.data.described.checks import nearest
from peft_dense.data.described.codes import colours_of, ranges_of
from peft_dense.data.described.coding import Coding
from peft_dense.data.described.schema import TaskDescription
from peft_dense.data.labels import Array, as_label, unit_normals
from peft_dense.data.sources.declared import Declared
from peft_dense.errors import DataError
from peft_dense.tasks.kinds import IGNORE

__all__ = ["UNITS", "DepthCoding", "NormalsCoding"]

UNITS = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "um": 1e-6, "km": 1000.0}
UNITS |= {"in": 0.0254, "ft": 0.3048}
"""Metres per unit of depth."""

_AXES = {
    "right": (0, 1),
    "left": (0, -1),
    "up": (1, 1),
    "down": (1, -1),
    "viewer": (2, 1),
    "away": (2, -1),
}


class DepthCoding(Coding):
    """Decode depth, as `Coding` says."""

    def __init__(self, task: str, how: TaskDescription, declared: Declared, source: str) -> None:
        super().__init__(task, how, declared, source)
        self._invalid = ranges_of(how.invalid, self.place)
        self._metres = self._scale()

    def _scale(self) -> float | None:
        """Give the metres of one unit; None where the file's type tells."""
        how = self.how
        if how.unit is not None and how.scale is not None:
            raise DataError(f"{self.place} has a unit and a scale; expected one of them.")
        if how.unit is not None and how.unit not in UNITS:
            raise DataError(
                f"{self.place} has unit = {how.unit!r}; {nearest(how.unit, UNITS)} For another "
                "give scale = metres that 1 stands for."
            )
        if how.scale is not None and not how.scale > 0:
            raise DataError(f"{self.place} has scale = {how.scale:g}; expected above 0.")
        if how.scale is None and how.unit is None and (how.inverse or how.offset):
            raise DataError(f"{self.place} has inverse or offset, which need a unit or a scale.")
        return UNITS[how.unit] if how.unit else how.scale

    def decode(self, array: Array, path: Path) -> Tensor:
        """Turn what a file holds into depth in metres, 0 where there is none."""
        absent: Array = np.zeros(array.shape, bool)
        for low, high in self._invalid:
            absent = np.asarray(absent | ((array >= low) & (array <= high)))
        if self._metres is not None:
            flat = self.flat(array, path) if array.ndim == 3 else array
            absent = np.asarray(absent.reshape(*flat.shape, -1).all(-1))
            value = flat.astype(np.float64) + self.how.offset
            with np.errstate(divide="ignore", invalid="ignore"):
                metres = self._metres / value if self.how.inverse else self._metres * value
            metres = np.where(np.isfinite(metres), metres, 0).clip(min=0)
            label = torch.from_numpy(metres.astype(np.float32))[None]
        else:
            label = as_label(array, self.kind, path)
            absent = np.asarray(absent.reshape(*label.shape[-2:], -1).all(-1))
        return label.masked_fill(torch.from_numpy(absent), 0) if absent.any() else label


class NormalsCoding(Coding):
    """Decode normals, as `Coding` says."""

    def __init__(self, task: str, how: TaskDescription, declared: Declared, source: str) -> None:
        super().__init__(task, how, declared, source)
        self._invalid = [
            [code >> 16 & 255, code >> 8 & 255, code & 255]
            for code in (colours_of(how.invalid, self.place) if how.invalid else ())
        ]
        self._turn = self._axes()

    def _axes(self) -> tuple[list[int], list[int]] | None:
        """Give, for x, y and z, the channel and its sign; None where nothing has to move."""
        axes = self.how.axes
        wrong = [axis for axis in axes if axis not in _AXES]
        if wrong or len(axes) != 3 or len({_AXES[axis][0] for axis in axes}) != 3:
            hint = nearest(wrong[0], _AXES) if wrong else "Each direction once."
            raise DataError(
                f"{self.place} has axes = {list(axes)}; expected where each of three channels "
                f"points, such as ['right', 'up', 'viewer']. {hint}"
            )
        turn = [_AXES[axis] for axis in axes]
        order = [next(i for i, (to, _) in enumerate(turn) if to == plane) for plane in range(3)]
        same = order == [0, 1, 2] and all(sign == 1 for _, sign in turn)
        if same and self.how.zero is None and not self._invalid:
            return None
        return order, [turn[channel][1] for channel in order]

    def decode(self, array: Array, path: Path) -> Tensor:
        """Turn what a file holds into unit vectors: x right, y up, z towards the viewer."""
        plain = array.ndim == 3 and array.shape[2] == 3
        if not plain or (self._turn is None and array.dtype.kind not in "iu"):
            return as_label(array, self.kind, path)
        if self._turn is None and array.dtype == np.uint8:
            return as_label(array, self.kind, path)
        order, signs = self._turn or ([0, 1, 2], [1, 1, 1])
        vectors = array.astype(np.float32)
        if array.dtype.kind in "iu":
            top = float(np.iinfo(array.dtype).max)
            signed = np.iinfo(array.dtype).min < 0
            middle = 0.0 if signed else top / 2
            valid = (array != 0).any(-1) & (array != top).any(-1)
            zero = middle if self.how.zero is None else self.how.zero
            vectors = (vectors - zero) / (top if signed else top / 2)
        else:
            valid = (array != IGNORE).any(-1)
            vectors -= self.how.zero or 0
        for colour in self._invalid:
            valid &= (array != np.array(colour, array.dtype)).any(-1)
        return unit_normals(vectors[..., order] * np.array(signs, np.float32), valid)
