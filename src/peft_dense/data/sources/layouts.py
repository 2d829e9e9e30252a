"""One way to open a folder, whichever of the layouts it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft_dense.data.labels import Item
from peft_dense.data.sources import nyud, pascal_context
from peft_dense.data.sources.declared import read_declared
from peft_dense.data.sources.finding import holds
from peft_dense.data.sources.folder import DenseFolder, available_tasks
from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.errors import DataError
from peft_dense.tasks import tasks as known_tasks

__all__ = ["layout_of", "open_data"]

_MARKS = {"JPEGImages": "pascal", "gt_sets": "nyud", "images": "folder"}
_EXPECTED = (
    "Expected PASCAL_MT (JPEGImages/, ImageSets/Context/ ...), NYUD_MT (gt_sets/ ...), or your own "
    "images as a DenseFolder: train.txt and val.txt with one id per line, images/<id>.jpg, and one "
    "folder of labels per task, such as semseg/<id>.png or sal/<id>.png."
)


def layout_of(root: str | Path) -> str:
    """Tell ``pascal``, ``nyud`` or ``folder`` by what is in a folder, or in an archive inside it.

    Raises:
        DataError: It is none of them.
    """
    root = Path(root)
    for folder in (root, *(root / name for name in (*pascal_context.NAMES, *nyud.NAMES))):
        for mark, layout in _MARKS.items():
            if (folder / mark).is_dir():
                _refuse_others(folder)
                return layout
    if not root.is_dir():
        raise DataError(f"no folder {root}; pass the one that holds the data set.")
    raise DataError(f"{root} is no data set: it {holds(root)}. {_EXPECTED}")


def _refuse_others(folder: Path) -> None:
    """Name what looks alike and isn't: PASCAL VOC itself, and ADE20K."""
    if (folder / "SegmentationClass").is_dir() and not (folder / "ImageSets/Context").is_dir():
        raise DataError(
            f"{folder} is PASCAL VOC (SegmentationClass/), not the multi-task archive. {_EXPECTED}"
        )
    if (folder / "annotations").is_dir() and (folder / "images" / "training").is_dir():
        raise DataError(
            f"{folder} is laid out as ADE20K (annotations/, images/training/). {_EXPECTED}"
        )


def open_data(
    root: str | Path,
    split: str,
    tasks: Sequence[str] | None = None,
    transform: Callable[[Item], Item] | None = None,
    *,
    protocol: str = "atrc",
    kinds: Mapping[str, str] | None = None,
) -> PASCALContext | NYUDv2 | DenseFolder:
    """Open one split of a data set on disk, by its layout.

    Args:
        root: The folder.
        split: ``train`` or ``val``, or in a `DenseFolder` any other list.
        tasks: The labels wanted; by default those that the layout's class takes by itself, and of a
            `DenseFolder` all that the library knows or that are declared.
        transform: Callable from item to item.
        protocol: As for `PASCALContext`; the other layouts have one only.
        kinds: What kind of labels tasks of your own have, in a `DenseFolder`.

    Raises:
        DataError: It is no data set, or something of it is missing.
    """
    layout = layout_of(root)
    if layout == "folder":
        return DenseFolder(root, split, tasks or _known(Path(root), kinds), transform, kinds=kinds)
    if kinds:
        raise DataError(
            f"{root} is an archive whose tasks have their kinds; got kinds of {', '.join(kinds)}. "
            "Tasks of your own are those of a DenseFolder."
        )
    chosen: dict[str, Any] = {} if tasks is None else {"tasks": tuple(tasks)}
    if layout == "nyud":
        return NYUDv2(root, split, transform=transform, **chosen)
    return PASCALContext(root, split, transform=transform, protocol=protocol, **chosen)


def _known(root: Path, kinds: Mapping[str, str] | None) -> list[str]:
    """Give a folder's tasks that the library knows, or that are declared."""
    declared = read_declared(root, kinds or {}, {})
    named = {*known_tasks(), *declared.kinds, *declared.numbers, *declared.names}
    there = available_tasks(root)
    wanted = [name for name in there if name in named]
    if not wanted:
        raise DataError(
            f"{root} has no labels that are known by name: beside images/ it has "
            f"{', '.join(f'{name}/' for name in there) or 'no folder'}. Call label folders by "
            f"their task ({', '.join(known_tasks())}), or say what kind of labels a folder of your "
            f"own has: {there[0] if there else 'roofs'}=binary."
        )
    return wanted
