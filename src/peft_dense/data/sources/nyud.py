"""The multi-task NYUDv2 archive, read as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peft_dense.data.labels import IGNORE, Array, Item, as_label, read_array
from peft_dense.data.sources.files import LabelledFiles
from peft_dense.data.sources.finding import check_folders, find, find_archive, missing, read_ids
from peft_dense.errors import DataError

__all__ = ["CLASSES", "NYUDv2"]

CLASSES = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf"),
    *("picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser", "pillow", "mirror"),
    *("floor mat", "clothes", "ceiling", "books", "refridgerator", "television", "paper", "towel"),
    *("shower curtain", "box", "whiteboard", "person", "night stand", "toilet", "sink", "lamp"),
    *("bathtub", "bag", "otherstructure", "otherfurniture", "otherprop"),
)
"""The 40 classes in the names, spelling and order of Gupta et al. (CVPR 2013)."""

NAMES = ("NYUD_MT", "NYUDv2")
"""Possible names of the unpacked archive."""

_FOLDERS: dict[str, list[tuple[str, ...]]] = {
    "semseg": [("segmentation",)],
    "normals": [("normals",)],
    "depth": [("depth",)],
    "edge": [("edge",)],
}
_SUFFIXES = {"semseg": (".png",), "depth": (".npy",)}


class NYUDv2(LabelledFiles):
    """Read images of NYUDv2 with labels for up to four tasks.

    ::

        <root>/gt_sets/train.txt, val.txt     one id per line
               images/<id>.jpg | .png
               segmentation/<id>.png          0 ignored, else class + 1
               normals/<id>.npy | .png        (H, W, 3); a PNG holds 255 (n + 1) / 2
               depth/<id>.npy                 metres, 0 ignored
               edge/<id>.npy | .png           0 or 1; a PNG holds 0 or 255

    The .png of images, normals and edges are those of the mirror that is called ``NYUDv2``. An item
    is a dict: ``image`` ``(3, H, W)`` float32 in 0..1; one label per task, as
    `peft_dense.data.labels` says; ``meta`` with ``id`` and ``size`` (height and width on disk).

    Args:
        root: The unpacked ``NYUD_MT`` or ``NYUDv2``, or the folder that holds it (the first of
            these, if it holds both).
        split: Name of a list, ``train`` or ``val``.
        tasks: Any of ``semseg``, ``normals``, ``depth``, ``edge``.
        transform: Callable from item to item, for instance of `peft_dense.data.transforms`.

    Shape:
        ``image``: ``(C, H, W)``; labels: ``(H, W)``, and ``(C, H, W)`` of normals and depth

    Raises:
        UnknownNameError: If a task isn't one of those above.
        DataError: If the list or the folder of a task isn't there, or, on access, a file can't be
            read or a label has another size than its image.

    Example:
        >>> NYUDv2("/nowhere", "train")
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: no folder gt_sets in /nowhere, nor in NYUD_MT/ or NYUDv2/ ...
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        tasks: Sequence[str] = ("semseg", "normals", "depth", "edge"),
        transform: Callable[[Item], Item] | None = None,
    ) -> None:
        folder = find_archive(root, NAMES, "gt_sets")
        check_folders(folder, tasks, _FOLDERS)
        super().__init__(folder, split, tasks, transform, read_ids(folder / "gt_sets", split))

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, of those tasks that have classes."""
        return {"semseg": list(CLASSES)} if "semseg" in self.tasks else {}

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from.

        Args:
            name: Id of an image.

        Returns:
            ``image``, and one path per task; a task whose file isn't there has no entry.
        """
        image = find(self.root / "images", name, (".jpg", ".png"))
        there = {}
        for task in self.tasks:
            folder, suffixes = self._place(task)
            path = find(folder, name, suffixes)
            if path is not None:
                there[task] = path
        return {"image": image or self.root / "images" / f"{name}.jpg", **there}

    def _place(self, task: str) -> tuple[Path, tuple[str, ...]]:
        """The folder of a task's labels, and what their names may end in."""
        return self.root / _FOLDERS[task][0][0], _SUFFIXES.get(task, (".npy", ".png"))

    def _label(
        self, task: str, name: str, files: Mapping[str, Path], size: tuple[int, int]
    ) -> Tensor | None:
        if task not in files:
            folder, suffixes = self._place(task)
            raise missing(name, task, [folder / f"{name}{suffix}" for suffix in suffixes])
        path = files[task]
        array = read_array(path)
        if task == "semseg":
            return _semseg(as_label(array, task, path), path)
        if task == "normals" and array.shape[:1] == (3,) and array.shape[1:] == size:
            array = np.moveaxis(array, 0, -1)
        if task == "edge":
            if array.shape[2:] == (1,):
                array = array[..., 0]
            return _edge(array, path)
        return as_label(array, task, path)


def _semseg(label: Tensor, path: Path) -> Tensor:
    if label.max() > len(CLASSES):
        raise DataError(f"{path} holds {label.max()}; expected 0 to {len(CLASSES)}.")
    return torch.where(label == 0, IGNORE, label - 1)


def _edge(array: Array, path: Path) -> Tensor:
    label = as_label(array, "edge", path)
    if path.suffix == ".png" and label.max() > 1:
        return (label > 127).long()
    if label.max() > 1:
        raise DataError(f"{path} holds {label.max()}; edges are 0 or 1.")
    return label
