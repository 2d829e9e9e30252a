"""One way to open a folder, whichever of the layouts it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from peft_dense.data.labels import Item
from peft_dense.data.sources import nyud, pascal_context
from peft_dense.data.sources.folder import DenseFolder, available_tasks
from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.errors import DataError
from peft_dense.tasks import tasks as known_tasks

__all__ = ["layout_of", "open_data"]

_MARKS = {"JPEGImages": "pascal", "gt_sets": "nyud", "images": "folder"}


def layout_of(root: str | Path) -> str:
    """Tell ``pascal``, ``nyud`` or ``folder`` by what is in a folder, or in an archive inside it.

    Raises:
        DataError: It is none of them.
    """
    root = Path(root)
    for folder in (root, *(root / name for name in (*pascal_context.NAMES, *nyud.NAMES))):
        for mark, layout in _MARKS.items():
            if (folder / mark).is_dir():
                return layout
    if not root.is_dir():
        raise DataError(f"no folder {root}; pass the one that holds the data set.")
    there = ", ".join(sorted(path.name for path in root.iterdir())[:8])
    raise DataError(
        f"{root} is no data set: it holds {there or 'nothing'}. Expected PASCAL_MT (JPEGImages/ "
        "...), NYUD_MT (gt_sets/ ...) or a DenseFolder (images/, train.txt, a folder a task)."
    )


def open_data(
    root: str | Path,
    split: str,
    tasks: Sequence[str] | None = None,
    transform: Callable[[Item], Item] | None = None,
    *,
    protocol: str = "atrc",
) -> PASCALContext | NYUDv2 | DenseFolder:
    """Open one split of a data set on disk, by its layout.

    Args:
        root: The folder.
        split: ``train`` or ``val``, or in a `DenseFolder` any other list.
        tasks: The labels wanted; by default those that the layout's class takes by itself, and of a
            `DenseFolder` all that the library knows.
        transform: Callable from item to item.
        protocol: As for `PASCALContext`; the other layouts have one only.

    Raises:
        DataError: It is no data set, or something of it is missing.
    """
    layout = layout_of(root)
    if layout == "folder":
        wanted = tasks or [name for name in available_tasks(root) if name in known_tasks()]
        return DenseFolder(root, split, wanted, transform)
    chosen: dict[str, Any] = {} if tasks is None else {"tasks": tuple(tasks)}
    if layout == "nyud":
        return NYUDv2(root, split, transform=transform, **chosen)
    return PASCALContext(root, split, transform=transform, protocol=protocol, **chosen)
