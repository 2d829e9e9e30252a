"""Where a described set lies, and what its description declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft_dense.data.described.ready import FILE
from peft_dense.data.described.schema import Description
from peft_dense.data.sources.declared import Declared
from peft_dense.errors import DataError

__all__ = ["declared_by", "place_of"]


def declared_by(how: Description) -> Declared:
    """Gather classes and kinds of a description as other data sets have them.

    Example:
        >>> from peft_dense.data.described.ready import read_description
        >>> declared_by(read_description("voc")).number("semseg")
        21
    """
    declared = Declared(source=how.source)
    for task, each in how.tasks.items():
        kind = each.labels_of(task)
        declared.kinds[task] = kind.name
        if kind.name == "segmentation" and each.names:
            declared.names[task] = list(each.names)
        elif kind.name == "segmentation" and each.number:
            declared.numbers[task] = each.number
    return declared


def place_of(how: Description, given: Any) -> Path:
    """Find the set's folder: what was given, or what the description says.

    Args:
        how: The description.
        given: The folder, the description's file, or None.

    Raises:
        DataError: If there is none.
    """
    if given is None:
        if how.root is None:
            raise DataError(f"{how.source} doesn't say where the set is; pass root=....")
        folder = Path(how.root)
    else:
        folder = Path(given).expanduser()
        if folder.is_file():
            folder = folder.parent
            folder = folder / how.root if how.root else folder
        elif how.root and str(folder / FILE) == how.source:
            folder = folder / how.root
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; pass the one that holds the data set.")
    first = how.marks or (how.images.pattern.split("{")[0].rsplit("/", 1)[0],)
    for inner in ("", *how.inside):
        if all(any((folder / inner).glob(mark)) for mark in first if mark):
            return folder / inner if inner else folder
    return folder
