"""Patterns of paths: from an id to its file, and from files to the ids that are there.

``{id}`` stands for what tells images apart and may hold slashes; other names in braces stand for
one folder or a part of a name, such as ``{split}`` or ``{scene}``. A pattern that ends in ``.*``
takes any ending that such files have, in capitals too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from peft_dense.data.sources.finding import Listing
from peft_dense.errors import DataError

__all__ = ["SPLIT", "Pattern", "line_regex"]

SPLIT = "split"
"""The name in braces that stands for the split, and so is no part of an id."""

_NAME = re.compile(r"\{([^{}]*)\}")
_ANY = ".*"


class Pattern:
    """A pattern of paths, with names in braces.

    Args:
        text: The pattern, with ``/`` between folders, relative to the set's folder.
        endings: What ``.*`` at its end stands for, in lower case.

    Raises:
        DataError: If the text isn't a pattern.

    Example:
        >>> pattern = Pattern("{scene}/rgb/{id}.png")
        >>> pattern.fill({"scene": "attic", "id": "7"})
        'attic/rgb/7.png'
        >>> pattern.match("attic/rgb/7.png")
        {'scene': 'attic', 'id': '7'}
    """

    def __init__(self, text: str, endings: Sequence[str] = ()) -> None:
        self.text = text
        self.names = tuple(dict.fromkeys(_NAME.findall(text)))
        self.open = text.endswith(_ANY)
        self.endings = tuple(endings)
        self._listing = Listing(endings)
        body = text.removesuffix(_ANY) if self.open else text
        wrong = [name for name in self.names if not name.isidentifier()]
        rest = _NAME.sub("", body)
        if wrong or set(rest) & set("{}*?") or text.startswith("/") or ".." in rest.split("/"):
            raise DataError(
                f"{text!r} is no pattern of paths; expected a path inside the set's folder with "
                "names in braces, such as 'labels/{split}/{id}.png', or 'labels/{id}.*' for any "
                "ending."
            )
        self._body = body
        self._regex = re.compile(_regex(body, ""))

    @property
    def id_names(self) -> tuple[str, ...]:
        """The names that make an id: all but the split."""
        return tuple(name for name in self.names if name != SPLIT)

    def fill(self, values: Mapping[str, str]) -> str:
        """Put values in the place of names; ``.*`` stays."""
        return _NAME.sub(lambda found: values[found[1]], self.text)

    def find(self, root: Path, values: Mapping[str, str]) -> Path | None:
        """Give the file of some values, if there is one.

        Raises:
            DataError: If there are several.
        """
        if self.open:
            path = root / _NAME.sub(lambda found: values[found[1]], self._body)
            return self._listing.find(path.parent, path.name)
        path = root / self.fill(values)
        return path if path.is_file() else None

    def match(self, path: str) -> dict[str, str] | None:
        """Give the values of names in a path, or None if it isn't such a path."""
        if self.open:
            path, dot, ending = path.rpartition(".")
            if f"{dot}{ending}".lower() not in self.endings:
                return None
        found = self._regex.fullmatch(path)
        return found.groupdict() if found else None

    def scan(self, root: Path, fixed: Mapping[str, str] | None = None) -> Iterator[Path]:
        """Give the files there are, in the order of their names.

        Args:
            root: The set's folder.
            fixed: Values that some names are to have.
        """
        pattern = self
        if fixed:
            filled = _NAME.sub(lambda found: fixed.get(found[1], found[0]), self.text)
            pattern = Pattern(filled, self.endings)
        constant = [*_before_names(pattern._body)]
        top = root.joinpath(*constant)
        deep = pattern._depth
        for folder, inner, files in os.walk(top, followlinks=True):
            level = len(Path(folder).relative_to(root).parts)
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            if deep is not None and level >= deep - 1:
                inner.clear()
            for file in sorted(files):
                path = Path(folder, file)
                if pattern.match(path.relative_to(root).as_posix()) is not None:
                    yield path

    @cached_property
    def _depth(self) -> int | None:
        """How many parts a path has; None where an id may hold any number of folders."""
        return None if "id" in self.names else self._body.count("/") + 1

    def values_of(self, root: Path, path: Path) -> dict[str, str]:
        """Give the values of names in a file that `scan` gave."""
        return self.match(path.relative_to(root).as_posix()) or {}


def _before_names(body: str) -> Iterator[str]:
    """Give the folders that come before the first name in braces."""
    for part in body.split("/")[:-1]:
        if "{" in part:
            return
        yield part


def _regex(text: str, star: str) -> str:
    """Write a pattern as a regular expression; a name that comes again has to be the same."""
    made, seen, at = "", set[str](), 0
    for found in _NAME.finditer(text):
        made += _plain(text[at : found.start()], star)
        name = found[1]
        one = ".+" if name == "id" else "[^/]+"
        made += f"(?P={name})" if name in seen else f"(?P<{name}>{one})"
        seen.add(name)
        at = found.end()
    return made + _plain(text[at:], star)


def _plain(text: str, star: str) -> str:
    return star.join(map(re.escape, text.split("*"))) if star else re.escape(text)


def line_regex(text: str) -> re.Pattern[str]:
    """Compile the pattern of a line in a list of ids, in which ``*`` stands for anything.

    Example:
        >>> line_regex("*/{id}.png *").fullmatch("/data/x/a_1.png /data/y/a_1.png")["id"]
        'a_1'
    """
    if "*" not in text:
        return re.compile(_regex(text, ""))
    return re.compile(_regex(text, ".*").replace("(?P<id>.+)", r"(?P<id>\S+?)"))
