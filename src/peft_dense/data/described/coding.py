"""From what a file holds to a label, by the description of its task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peft_dense.data.described.checks import nearest
from peft_dense.data.described.codes import (
    IGNORED,
    Table,
    class_number,
    code_of_colours,
    colour_text,
    colours_of,
    numbers_of,
    ranges_of,
)
from peft_dense.data.described.schema import TaskDescription
from peft_dense.data.labels import Array, as_label, unit_normals
from peft_dense.data.sources.declared import Declared
from peft_dense.data.sources.marks import decode_marks
from peft_dense.errors import DataError
from peft_dense.tasks.kinds import IGNORE, LabelKind

__all__ = ["UNITS", "Coding"]

UNITS = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "um": 1e-6, "km": 1000.0}
UNITS |= {"in": 0.0254, "ft": 0.3048}
"""Metres that a unit of depth has."""

_AXES = {
    "right": (0, 1),
    "left": (0, -1),
    "up": (1, 1),
    "down": (1, -1),
    "viewer": (2, 1),
    "away": (2, -1),
}
_MARKS = ("background", "marked")


class Coding:
    """Decode the labels of one task.

    Args:
        task: Its name.
        how: Its description.
        declared: Classes and kinds of the whole set.
        source: Where the description is from, for messages.
        foreground: Finds out which value marks a pixel, of masks that nobody described further.

    Raises:
        DataError: If a value, colour, unit or axis in the description can't be.
    """

    def __init__(
        self,
        task: str,
        how: TaskDescription,
        declared: Declared,
        source: str,
        foreground: Callable[[], int],
    ) -> None:
        self.task, self.how, self.declared, self.source = task, how, declared, source
        self.kind: LabelKind = declared.kind(task)
        self.place = f"[tasks.{task}] of {source}"
        self._foreground: int | None = None
        self.in_colours = how.palette is not None
        self.table = self._table() if self.kind.counted else None
        self._invalid = ranges_of(how.invalid, self.place) if self.kind.name == "depth" else []
        self._metres = self._scale() if self.kind.name == "depth" else None
        self._turn = self._axes() if self.kind.name == "normals" else None
        if self.kind.marks and self.table is None and how.threshold is None:
            self._foreground = foreground()

    def decode(self, array: Array, path: Path) -> Tensor:
        """Make what a file holds a label; classes of bytes may stay bytes.

        Raises:
            DataError: If the file holds something that the description doesn't know.
        """
        if self.kind.name == "depth":
            return self._depth(array, path)
        if self.kind.name == "normals":
            return self._normals(array, path)
        if self.how.threshold is not None:
            array = self._marked(self._flat(array, path), self.how.threshold)
        elif self.table is not None:
            return self._mapped(array, path)
        else:
            array = self._flat(array, path)
            if self._foreground is not None:
                array = decode_marks(array, self._foreground, path)
        label = as_label(array, self.kind, path, narrow=True)
        if self.kind.name == "segmentation":
            self.declared.check(self.task, label, self.kind, path)
        return label

    # ------------------------------------------------------------------ classes and marks

    def _table(self) -> Table | None:
        """Compile values, palette and what is ignored; None where values are classes themselves."""
        how = self.how
        names = self.declared.names.get(self.task) if self.kind.name == "segmentation" else _MARKS
        number = 2 if self.kind.marks else self.declared.number(self.task)
        if how.values is not None and how.palette is not None:
            raise DataError(f"{self.place} has values and a palette; expected one of them.")
        self._others = None
        if how.others is not None:
            self._others = class_number(how.others, names, number, f"others in {self.place}")
        codes: dict[int, int] = {}

        def put(many: Iterable[int], value: Any, key: str) -> None:
            index = class_number(value, names, number, f"{key} in {self.place}")
            for code in many:
                if codes.setdefault(code, index) != index:
                    shown = colour_text(code) if self.in_colours else code
                    raise DataError(
                        f"{key} in {self.place} gives {shown} two classes, {codes[code]} and "
                        f"{index}; expected one."
                    )

        for held, value in _pairs(how.values):
            put(self._codes(held, "values"), value, "values")
        for value, held in _pairs(how.palette):
            put(self._codes(held, "palette"), value, "palette")
        if how.values is None and how.palette is None:
            if how.ignore is None and how.others is None:
                return None
            if self.kind.marks:
                codes |= {0: 0, 1: 1}
        ignored = [IGNORE] if how.ignore is None and not self.in_colours else how.ignore or ()
        if how.ignore is None:
            ignored = [code for code in ignored if code not in codes]
        for each in ignored:
            for code in self._codes(each, "ignore"):
                codes[code] = IGNORED
        if how.values is None and how.palette is None and not self.kind.marks:
            for code in range(number or 0):
                codes.setdefault(code, code)
        return Table(codes)

    def _codes(self, held: Any, key: str) -> list[int]:
        where = f"{key} in {self.place}"
        return colours_of(held, where) if self.in_colours else numbers_of([held], where)

    def _mapped(self, array: Array, path: Path) -> Tensor:
        """Look every value up; what nothing names is an error that names it."""
        assert self.table is not None
        if self.in_colours:
            if array.ndim != 3 or array.shape[2] < 3 or array.dtype != np.uint8:
                raise DataError(
                    f"{path} has shape {array.shape} of {array.dtype}; {self.place} has a palette, "
                    "which is of images in colours."
                )
            held = code_of_colours(array)
        else:
            held = self._whole(self._flat(array, path), path)
        open_ended = self.how.values is None and self.how.palette is None and not self.kind.marks
        found, absent = self.table.find(held, self._others)
        if open_ended and self.declared.number(self.task) is None:
            found, absent = np.where(absent, held, found), np.zeros_like(absent)
        if absent.any():
            raise self._unknown(held, absent, path)
        ignored = found == IGNORED
        number = 2 if self.kind.marks else self.declared.number(self.task) or 0
        narrow = self.kind.ignore <= IGNORE and number <= IGNORE
        found[ignored] = self.kind.ignore
        if open_ended:
            label = torch.from_numpy(found)
            self.declared.check(self.task, label, self.kind, path)
            return label
        return torch.from_numpy(found.astype(np.uint8) if narrow else found)

    def _unknown(self, held: Array, absent: Array, path: Path) -> DataError:
        """Build the error for values that the description doesn't name."""
        values, counts = np.unique(held[absent], return_counts=True)
        most = values[np.argsort(-counts)][:5].tolist()
        row, column = (int(where[0]) for where in np.nonzero(absent))
        shown = ", ".join(colour_text(v) if self.in_colours else f"{v}" for v in most)
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        what = "colour" if self.in_colours else "value"
        near = self._nearest(most[0]) if self.in_colours else ""
        number = (
            ""
            if self.how.values or self.in_colours or self.kind.marks
            else (f" ({self.declared.number(self.task)} classes)")
        )
        return DataError(
            f"{path} holds the {what}{'s' if len(values) > 1 else ''} {shown}{more} in "
            f"{int(counts.sum())} pixels, first in row {row}, column {column}; {self.place} "
            f"doesn't name {'them' if len(values) > 1 else 'it'}{number}.{near} Name it there, "
            "list it in ignore, or set others = 'ignore'."
        )

    def _nearest(self, code: int) -> str:
        assert self.table is not None
        if not len(self.table.codes):
            return ""
        apart = [
            sum(abs((code >> s & 255) - (int(known) >> s & 255)) for s in (16, 8, 0))
            for known in self.table.codes
        ]
        best = int(np.argmin(apart))
        lossy = " A file that was saved as JPEG or resampled has such." if apart[best] < 60 else ""
        return f" Nearest is {colour_text(int(self.table.codes[best]))}.{lossy}"

    def _flat(self, array: Array, path: Path) -> Array:
        """Take the one channel of a grey image that was saved as RGB."""
        if array.ndim == 3 and array.shape[2] in (1, 3, 4):
            planes = array[..., : min(array.shape[2], 3)]
            if array.dtype == np.uint8 and (planes == planes[..., :1]).all():
                return np.ascontiguousarray(planes[..., 0])
            raise DataError(
                f"{path} has shape {array.shape} of {array.dtype}; class labels are one channel, "
                f"(H, W). Where colours stand for classes, give a palette in {self.place}."
            )
        return array

    def _whole(self, array: Array, path: Path) -> Array:
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise DataError(
                f"{path} has shape {array.shape} of {array.dtype}; class labels are one channel, "
                "(H, W), of numbers."
            )
        if array.dtype.kind in "iu":
            return array
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int64)
        if (whole != array).any():
            raise DataError(f"{path} holds {array.min()} to {array.max()}; expected whole numbers.")
        return whole

    def _marked(self, array: Array, threshold: float) -> Array:
        """Mark what is above a threshold, and ignore what is to be ignored."""
        marks = (array > threshold).astype(np.uint8)
        for low, high in ranges_of(self.how.ignore or (), self.place):
            marks[(array >= low) & (array <= high)] = IGNORE
        return marks

    # ------------------------------------------------------------------ depth and normals

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

    def _depth(self, array: Array, path: Path) -> Tensor:
        absent: Array = np.zeros(array.shape, bool)
        for low, high in self._invalid:
            absent = absent | ((array >= low) & (array <= high))
        if self._metres is not None:
            flat = self._flat(array, path) if array.ndim == 3 else array
            absent = absent.reshape(*flat.shape, -1).all(-1)
            value = flat.astype(np.float64) + self.how.offset
            with np.errstate(divide="ignore", invalid="ignore"):
                metres = self._metres / value if self.how.inverse else self._metres * value
            metres = np.where(np.isfinite(metres), metres, 0).clip(min=0)
            label = torch.from_numpy(metres.astype(np.float32))[None]
        else:
            label = as_label(array, self.kind, path)
            absent = absent.reshape(*label.shape[-2:], -1).all(-1)
        return label.masked_fill(torch.from_numpy(absent), 0) if absent.any() else label

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
        self._invalid_normals = [
            [code >> 16 & 255, code >> 8 & 255, code & 255]
            for code in (colours_of(self.how.invalid, self.place) if self.how.invalid else ())
        ]
        same = order == [0, 1, 2] and all(sign == 1 for _, sign in turn)
        if same and self.how.zero is None and not self._invalid_normals:
            return None
        return order, [turn[channel][1] for channel in order]

    def _normals(self, array: Array, path: Path) -> Tensor:
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
        for colour in self._invalid_normals:
            valid &= (array != np.array(colour, array.dtype)).any(-1)
        return unit_normals(vectors[..., order] * np.array(signs, np.float32), valid)


def _pairs(table: Mapping[str, Any] | tuple[Any, ...] | None) -> list[tuple[Any, Any]]:
    """List keys and values of a table; a list's keys are its places."""
    if table is None:
        return []
    return list(table.items() if isinstance(table, Mapping) else enumerate(table))
