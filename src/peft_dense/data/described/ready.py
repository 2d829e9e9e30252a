"""Ready descriptions of well-known data sets, kept as TOML files beside the code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft_dense.data.described.checks import nearest
from peft_dense.data.described.schema import Description
from peft_dense.data.described.toml import read_toml
from peft_dense.errors import DataError

__all__ = ["FILE", "ready_descriptions", "read_description", "recognise"]

FILE = "dense.toml"
"""Name of a description's file in the folder of its set."""

_FOLDER = Path(__file__).parents[1] / "descriptions"


def ready_descriptions() -> list[str]:
    """List the names of ready descriptions.

    Example:
        >>> "cityscapes" in ready_descriptions()
        True
    """
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read_description(given: str | Path | Mapping[str, Any] | Description) -> Description:
    """Read a description.

    Args:
        given: A TOML file, a folder with a ``dense.toml``, the name of a ready description, a dict
            of the same form, or a description.

    Raises:
        DataError: If it can't be read, or holds a wrong value.

    Example:
        >>> read_description("voc").tasks["semseg"].number
        21
        >>> read_description({"like": "voc", "images": "photos/{id}.png"}).images.pattern
        'photos/{id}.png'
    """
    if isinstance(given, Description):
        return given
    if isinstance(given, Mapping):
        return Description.of(_whole(given, "the description"))
    if isinstance(given, str) and given in ready_descriptions():
        path = _FOLDER / f"{given}.toml"
        return Description.of({"name": given, **read_toml(path)}, f"the description of {given}")
    path = Path(given)
    path = path / FILE if path.is_dir() else path
    if isinstance(given, str) and "/" not in given and not path.exists() and "." not in given:
        raise DataError(
            f"{given!r} is no ready description, file or folder; "
            f"{nearest(given, ready_descriptions())}"
        )
    return Description.of(_whole(read_toml(path), str(path)), str(path))


def recognise(root: Path) -> str | None:
    """Name the ready description whose layout a folder has, by its marks.

    Of several the one with the most marks.

    Args:
        root: A folder.
    """
    best: tuple[int, str] | None = None
    for name in ready_descriptions():
        description = read_description(name)
        for inner in ("", *description.inside):
            marks = description.marks
            if marks and all(any((root / inner).glob(mark)) for mark in marks):
                best = max(best or (0, ""), (len(marks), name))
    return best[1] if best else None


def _whole(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Complete a description by the ready one that it is like."""
    own = {key: value for key, value in given.items() if key != "like"}
    if "like" not in given:
        return own
    like = given["like"]
    if like not in ready_descriptions():
        raise DataError(f"{source} has like = {like!r}; {nearest(str(like), ready_descriptions())}")
    base = read_toml(_FOLDER / f"{like}.toml")
    merged = {"name": like, **base, **own}
    tasks = own.get("tasks")
    if isinstance(tasks, Mapping):
        merged["tasks"] = base["tasks"] | {
            name: base["tasks"].get(name, {}) | each if isinstance(each, Mapping) else each
            for name, each in tasks.items()
        }
    return merged
