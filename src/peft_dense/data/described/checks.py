"""Checks of a description's keys and types; errors name the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from peft_dense.errors import DataError

__all__ = ["Checker", "nearest"]


def nearest(given: str, known: Iterable[str]) -> str:
    """Give the nearest known name, and all.

    Example:
        >>> nearest("lables", ["labels", "kind"])
        "did you mean 'labels'? Known: kind, labels."
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}Known: {', '.join(names)}."


class Checker:
    """Check parts of a description, and name the part in errors.

    Args:
        source: Where the description is from.
        part: The table that is checked, such as ``tasks.depth``.
    """

    def __init__(self, source: str, part: str = "") -> None:
        self.source, self.part = source, part

    @property
    def place(self) -> str:
        """Name the table and the file."""
        return f"[{self.part}] of {self.source}" if self.part else self.source

    def at(self, part: str) -> Checker:
        """Check another table."""
        return Checker(self.source, part)

    def keys(
        self, given: Mapping[str, Any], known: Collection[str], needed: Iterable[str] = ()
    ) -> None:
        """Raise if a key is unknown, or one that is needed isn't there."""
        for key in given:
            if key not in known:
                raise DataError(
                    f"{self.place} has an unknown key {key!r}; {nearest(str(key), known)}"
                )
        for key in needed:
            if key not in given:
                raise DataError(f"{self.place} has no {key!r}, which it needs.")

    def table(self, value: Any, key: str) -> Mapping[str, Any]:
        """Raise unless a value is a table."""
        table: Mapping[str, Any] = self._of(value, Mapping, key, "a table of names and values")
        return table

    def text(self, value: Any, key: str) -> str:
        """Raise unless a value is a text."""
        return str(self._of(value, str, key, "a text in quotes"))

    def texts(self, value: Any, key: str) -> tuple[str, ...]:
        """Give texts, of a list or of one."""
        listed = (
            [value] if isinstance(value, str) else self._of(value, (list, tuple), key, "a list")
        )
        return tuple(self.text(each, key) for each in listed)

    def one_of(self, value: Any, key: str, known: Collection[str]) -> str:
        """Raise unless a value is one of some texts."""
        if value not in known:
            raise DataError(f"{self.place} has {key} = {value!r}; {nearest(str(value), known)}")
        return str(value)

    def typed(self, value: Any, key: str, annotation: str) -> Any:
        """Give a value as a field's annotation wants it: lists as tuples, numbers as floats."""
        if isinstance(value, list):
            value = tuple(value)
        if key in ("ignore", "invalid") and not isinstance(value, tuple):
            value = (value,)
        if key == "classes" and isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise DataError(f"{self.place} has classes = {value}; expected at least 1.")
            return value
        if "Mapping" in annotation or key in ("ignore", "others"):
            return value  # looked at where it is compiled
        if annotation.startswith("tuple"):
            return self.texts(value, key) if "str" in annotation else value
        if annotation.startswith("bool"):
            return self._of(value, bool, key, "true or false")
        if annotation.startswith("float"):
            return float(self._of(value, (int, float), key, "a number"))
        return self.text(value, key)

    def _of(self, value: Any, kind: Any, key: str, expected: str) -> Any:
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, kind):
            named = f" {key} = {value!r}" if key else f" {value!r}"
            raise DataError(f"{self.place} has{named}; expected {expected}.")
        return value
