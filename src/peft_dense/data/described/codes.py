"""Values and colours in a description, as numbers: ranges, colours, and a table from them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from peft_dense.data.described.checks import nearest
from peft_dense.data.labels import Array
from peft_dense.errors import DataError

__all__ = ["IGNORED", "Table", "code_of_colours", "colour_text", "numbers_of", "ranges_of"]

IGNORED = -1
"""What a table gives for a pixel without a label."""

_RANGE = re.compile(r"\s*(-?\d+)\s*(?:-|\.\.)\s*(-?\d+)\s*")
_HEX = re.compile(r"#([0-9a-fA-F]{6})")
_LARGEST = 1 << 24
"""The most values that a range may hold: as many as there are colours."""


def ranges_of(given: Iterable[Any], place: str) -> list[tuple[float, float]]:
    """Read values and ranges, of which ``"1-6"`` includes both ends.

    Raises:
        DataError: If something is neither.

    Example:
        >>> ranges_of([0, "1-6", "255"], "here")
        [(0, 0), (1, 6), (255, 255)]
    """
    found: list[tuple[float, float]] = []
    for each in given:
        if isinstance(each, (int, float)) and not isinstance(each, bool):
            found.append((each, each))
            continue
        text = str(each)
        match = _RANGE.fullmatch(text)
        if match and int(match[1]) <= int(match[2]):
            found.append((int(match[1]), int(match[2])))
        elif text.strip().lstrip("-").isdigit():
            found.append((int(text), int(text)))
        else:
            raise DataError(f"{place} has {each!r}; expected a number, or a range as '1-6'.")
    return found


def numbers_of(given: Iterable[Any], place: str) -> list[int]:
    """List the whole numbers of values and ranges.

    Raises:
        DataError: If something is neither, or a range is too long.
    """
    found: list[int] = []
    for low, high in ranges_of(given, place):
        if not (float(low).is_integer() and float(high).is_integer()):
            raise DataError(f"{place} has {low:g} to {high:g}; expected whole numbers.")
        if high - low >= _LARGEST:
            raise DataError(f"{place} has {low:g} to {high:g}; expected at most {_LARGEST} values.")
        found += range(int(low), int(high) + 1)
    return found


def colours_of(given: Any, place: str) -> list[int]:
    """Read one colour or several, ``"#804080"`` or ``[128, 64, 128]``, as numbers.

    Raises:
        DataError: If something is no colour.

    Example:
        >>> colours_of("#000102", "here"), colours_of([[0, 1, 2], [0, 0, 0]], "here")
        ([258], [258, 0])
    """
    if isinstance(given, str):
        match = _HEX.fullmatch(given.strip())
        if match:
            return [int(match[1], 16)]
    elif isinstance(given, (list, tuple)) and given:
        if all(isinstance(each, int) and 0 <= each <= 255 for each in given) and len(given) == 3:
            return [given[0] << 16 | given[1] << 8 | given[2]]
        if not isinstance(given[0], int):
            return [colour for each in given for colour in colours_of(each, place)]
    raise DataError(
        f"{place} has {given!r}; expected a colour, as '#804080' or [128, 64, 128], or a list of "
        "such."
    )


def code_of_colours(pixels: Array) -> Array:
    """Make one number of each pixel's red, green and blue.

    Shape:
        ``(H, W, 3) -> (H, W)`` int32
    """
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    packed: Array = red << 16 | green << 8 | blue
    return packed


def colour_text(code: int) -> str:
    """Write the number of a colour as ``#rrggbb``.

    Example:
        >>> colour_text(258)
        '#000102'
    """
    return f"#{code:06x}"


class Table:
    """Map the values in files to classes, by one lookup per pixel.

    Args:
        codes: From value to class, `IGNORED` where a pixel has no label.

    Example:
        >>> table = Table({7: 0, 8: 1, 0: IGNORED})
        >>> table.find(np.array([[7, 0, 9]], np.uint8), others=None)[0].tolist()
        [[0, -1, -2]]
    """

    unknown = -2

    def __init__(self, codes: Mapping[int, int]) -> None:
        self.codes = np.array(sorted(codes), np.int64)
        self.classes = np.array([codes[code] for code in sorted(codes)], np.int64)
        self._small: Array | None = None

    def find(self, values: Array, others: int | None) -> tuple[Array, Array]:
        """Give the class of every value, and where there is none.

        Args:
            values: Whole numbers.
            others: The class of values that aren't in the table; None leaves them `unknown`.
        """
        if values.dtype == np.uint8:
            if self._small is None:
                self._small = self._search(np.arange(256))
            found = self._small[values]
        else:
            found = self._search(values)
        absent: Array = found == self.unknown
        if others is not None:
            found = np.where(absent, others, found)
            absent = np.zeros_like(absent)
        return found, absent

    def _search(self, values: Array) -> Array:
        if not len(self.codes):
            return np.full(values.shape, self.unknown)
        place = np.searchsorted(self.codes, values).clip(max=len(self.codes) - 1)
        hit = self.codes[place] == values
        return np.where(hit, self.classes[place], self.unknown)


def class_number(value: Any, names: Sequence[str] | None, number: int | None, place: str) -> int:
    """Give the number of a class by its name or number; `IGNORED` for ``ignore``.

    Raises:
        DataError: If there is no such class.
    """
    if value == "ignore":
        return IGNORED
    if isinstance(value, str):
        if names and value in names:
            return names.index(value)
        known = nearest(value, [*(names or ()), "ignore"])
        raise DataError(f"{place} names the class {value!r}, which isn't among classes; {known}")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 0 or (number is not None and value >= number):
        end = "" if number is None else f" to {number - 1}"
        raise DataError(
            f"{place} has the class {value!r}; expected a class's name, its number from 0{end}, or "
            "'ignore'."
        )
    return int(value)
