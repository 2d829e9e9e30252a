"""Classes and marks: values, colours and soft masks become numbers of classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from peft_dense.data.described.coding import Coding
from peft_dense.data.described.schema import TaskDescription
from peft_dense.data.labels import Array, as_label
from peft_dense.data.sources.declared import Declared
from peft_dense.data.sources.marks import decode_marks
from peft_dense.errors import DataError
from peft_dense.tasks.kinds import IGNORE

__all__ = ["ClassCoding"]

_MARKS = ("background", "marked")


class ClassCoding(Coding):
    """Decode maps of classes, masks and edges.

    Args:
        task: Its name.
        how: Its description.
        declared: Classes and kinds of the whole set.
        source: Where the description is from, for messages.
        foreground: Finds the value that marks a pixel, for masks without further description.

    Raises:
        DataError: If a value or a colour in the description isn't allowed.
    """

    def __init__(
        self,
        task: str,
        how: TaskDescription,
        declared: Declared,
        source: str,
        foreground: Callable[[], int],
    ) -> None:
        super().__init__(task, how, declared, source)
        marks = self.kind.marks
        self._names = _MARKS if marks else tuple(declared.names.get(task, ())) or None
        self._number = 2 if marks else declared.number(task)
        self._named = how.values is not None or how.palette is not None
        self._others: int | None = None
        self._foreground: int | None = None
        self._table = self._compile()
        if marks and self._table is None and how.threshold is None:
            self._foreground = foreground()

    def decode(self, array: Array, path: Path) -> Tensor:
        """Turn what a file holds into a label; classes of bytes may stay bytes."""
        if self.how.threshold is not None:
            array = self._marked(self.flat(array, path), self.how.threshold)
        elif self._table is not None:
            return self._mapped(self._table, array, path)
        else:
            array = self.flat(array, path)
            if self._foreground is not None:
                array = decode_marks(array, self._foreground, path)
        label = as_label(array, self.kind, path, narrow=True)
        if not self.kind.marks:
            self.declared.check(self.task, label, self.kind, path)
        return label

    def _compile(self) -> Table | None:
        """Compile values, palette and what is ignored; None where values are classes themselves."""
        how = self.how
        if how.values is not None and how.palette is not None:
            raise DataError(f"{self.place} has values and a palette; expected one of them.")
        names, number = self._names, self._number
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
        if not self._named:
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
        if not self._named and not self.kind.marks:
            for code in range(number or 0):
                codes.setdefault(code, code)
        return Table(codes)

    def _codes(self, held: Any, key: str) -> list[int]:
        where = f"{key} in {self.place}"
        return colours_of(held, where) if self.in_colours else numbers_of([held], where)

    def _mapped(self, table: Table, array: Array, path: Path) -> Tensor:
        """Look every value up; raise for values that the description doesn't name."""
        if self.in_colours:
            if array.ndim != 3 or array.shape[2] < 3 or array.dtype != np.uint8:
                raise DataError(
                    f"{path} has shape {array.shape} of {array.dtype}; {self.place} has a palette, "
                    "which is of images in colours."
                )
            held = code_of_colours(array)
        else:
            held = self._whole(self.flat(array, path), path)
        open_ended = not self._named and not self.kind.marks
        found, absent = table.find(held, self._others)
        if open_ended and self._number is None:
            found, absent = np.where(absent, held, found), np.zeros_like(absent)
        if absent.any():
            raise self._unknown(table, held, absent, path)
        ignored = found == IGNORED
        narrow = self.kind.ignore <= IGNORE and (self._number or 0) <= IGNORE
        found[ignored] = self.kind.ignore
        if open_ended:
            label = torch.from_numpy(found)
            self.declared.check(self.task, label, self.kind, path)
            return label
        return torch.from_numpy(found.astype(np.uint8) if narrow else found)

    def _unknown(self, table: Table, held: Array, absent: Array, path: Path) -> DataError:
        """Build the error for values that the description doesn't name."""
        values, counts = np.unique(held[absent], return_counts=True)
        most = values[np.argsort(-counts)][:5].tolist()
        row, column = (int(where[0]) for where in np.nonzero(absent))
        shown = ", ".join(colour_text(v) if self.in_colours else f"{v}" for v in most)
        more = f" and {len(values) - 5} more" if len(values) > 5 else ""
        what = "colour" if self.in_colours else "value"
        near = _nearest(table, most[0]) if self.in_colours else ""
        plain = not self._named and not self.kind.marks
        number = f" ({self._number} classes)" if plain else ""
        return DataError(
            f"{path} holds the {what}{'s' if len(values) > 1 else ''} {shown}{more} in "
            f"{int(counts.sum())} pixels, first in row {row}, column {column}; {self.place} "
            f"doesn't name {'them' if len(values) > 1 else 'it'}{number}.{near} Name it there, "
            "list it in ignore, or set others = 'ignore'."
        )

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


def _nearest(table: Table, code: int) -> str:
    """Give the nearest colour of a palette."""
    if not len(table.codes):
        return ""
    apart = [
        sum(abs((code >> s & 255) - (int(known) >> s & 255)) for s in (16, 8, 0))
        for known in table.codes
    ]
    best = int(np.argmin(apart))
    lossy = " A file that was saved as JPEG or resampled has such." if apart[best] < 60 else ""
    return f" Nearest is {colour_text(int(table.codes[best]))}.{lossy}"


def _pairs(table: Mapping[str, Any] | tuple[Any, ...] | None) -> list[tuple[Any, Any]]:
    """List keys and values of a table; a list's keys are its indices."""
    if table is None:
        return []
    return list(table.items() if isinstance(table, Mapping) else enumerate(table))
