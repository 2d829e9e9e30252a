"""The multi-task PASCAL-Context archive, read as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from peft_dense.data.labels import IGNORE, Item, unit_normals
from peft_dense.data.sources.derived_cache import DerivedCache
from peft_dense.data.sources.files import LabelledFiles
from peft_dense.data.sources.finding import (
    check_folders,
    check_size,
    find_archive,
    missing,
    read_ids,
)
from peft_dense.data.sources.pascal_labels import (
    VERSION,
    coded_normals,
    edges,
    has_normals,
    sal,
    semseg,
)
from peft_dense.data.sources.pascal_parts import human_parts
from peft_dense.errors import UnknownNameError
from peft_dense.tasks.human_parts import HumanParts
from peft_dense.tasks.semseg import SemSeg

__all__ = ["PASCALContext"]

NAMES = ("PASCAL_MT", "PASCALContext")
"""Possible names of the unpacked archive."""

_PADDING = {"atrc": "ignore", "astmt": "background"}
_REGIONS = "pascal-context/trainval"
_FOLDERS: dict[str, list[tuple[str, ...]]] = {
    "semseg": [("semseg/VOC12", "semseg/pascal-context")],
    "human_parts": [("human_parts",)],
    "normals": [("normals_distill",), (_REGIONS,)],
    "sal": [("sal_distill",)],
    "edge": [(_REGIONS,)],
}
_COMPUTED = {"human_parts", "normals", "edge"}


class PASCALContext(LabelledFiles):
    """Read images of PASCAL-Context with labels for up to five tasks.

    ::

        <root>/ImageSets/Context/train.txt, val.txt     one id per line
               JPEGImages/<id>.jpg
               semseg/VOC12/<id>.png                    classes; where it isn't there,
               semseg/pascal-context/<id>.png           this
               human_parts/<id>.mat                     PASCAL-Part
               normals_distill/<id>.png                 made by a network
               sal_distill/<id>.png                     made by a network
               pascal-context/trainval/<id>.mat         regions: edges, and where normals count

    An item is a dict: ``image`` ``(3, H, W)`` float32 in 0..1; one label per task, as
    `peft_dense.data.labels` says; ``meta`` with ``id``, ``size`` (height and width on disk) and
    ``padding``. In an image without an annotated person part all of ``human_parts`` is 255.

    Nothing is written into the archive. ``human_parts``, ``edge`` and the pixels on which
    ``normals`` count are computed from the .mat files once and kept in another folder
    (`peft_dense.data.sources.derived_cache`).

    Args:
        root: The unpacked ``PASCAL_MT`` or ``PASCALContext``, or the folder that holds it (the
            first of these, if it holds both).
        split: Name of a list, ``train`` or ``val``.
        tasks: Any of ``semseg``, ``human_parts``, ``sal``, ``normals``, ``edge``.
        transform: Callable from item to item, for instance of `peft_dense.data.transforms`.
        protocol: What a transform puts into the corners of labels that it opens up: the ignored
            value (``atrc``, as in ATRC and what follows it) or the background class (``astmt``, as
            in ASTMT). It is handed on as ``meta["padding"]``, ``ignore`` or ``background``.
        cache: Folder for computed labels; None for ``$PEFT_DENSE_CACHE``, else
            ``~/.cache/peft_dense``; False to compute them on each access.

    Shape:
        ``image``: ``(3, H, W)``; labels: ``(H, W)``, of normals ``(3, H, W)``

    Raises:
        UnknownNameError: If a task or the protocol isn't one of those above.
        DataError: If the list or the folder of a task isn't there, or, on access, a file can't be
            read or a label has another size than its image.

    Example:
        >>> PASCALContext("/nowhere", "train")
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: no folder ImageSets/Context in /nowhere, nor in PASCAL_MT/ ...
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        tasks: Sequence[str] = ("semseg", "human_parts", "sal", "normals"),
        transform: Callable[[Item], Item] | None = None,
        *,
        protocol: str = "atrc",
        cache: str | Path | bool | None = None,
    ) -> None:
        if protocol not in _PADDING:
            raise UnknownNameError.of("protocol", protocol, _PADDING)
        lists = "ImageSets/Context"
        folder = find_archive(root, NAMES, lists)
        check_folders(folder, tasks, _FOLDERS)
        super().__init__(folder, split, tasks, transform, read_ids(folder / lists, split))
        self.padding = _PADDING[protocol]
        self._derived = DerivedCache(cache if _COMPUTED & set(tasks) else False)

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, of those tasks that have classes."""
        named = {"semseg": SemSeg.class_names, "human_parts": HumanParts.class_names}
        return {task: list(names) for task, names in named.items() if task in self.tasks}

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from.

        Args:
            name: Id of an image.

        Returns:
            ``image``, and one path per task; a task whose file isn't there has no entry.
        """
        there = {
            task: path
            for task in self.tasks
            for path in reversed(self._candidates(task, name))
            if path.is_file()
        }
        return {"image": self.root / "JPEGImages" / f"{name}.jpg", **there}

    def has_parts(self, name: str) -> bool:
        """Whether an image has an annotated person part; fast once labels are cached.

        Args:
            name: Id of an image.

        Raises:
            DataError: If the file of its parts can't be read.
        """
        return self._parts(self.root / "human_parts" / f"{name}.mat") is not None

    def _candidates(self, task: str, name: str) -> list[Path]:
        """Where the label of a task may be, best first."""
        kind = ".mat" if task in ("human_parts", "edge") else ".png"
        return [self.root / folder / f"{name}{kind}" for folder in _FOLDERS[task][0]]

    def _label(
        self, task: str, name: str, files: Mapping[str, Path], size: tuple[int, int]
    ) -> Tensor | None:
        if task not in files:
            raise missing(name, task, self._candidates(task, name))
        path = files[task]
        if task == "human_parts":
            return self._parts(path)
        if task == "normals":
            return self._normals(path, name, files["image"], size)
        if task == "edge":
            drawn = self._derived.get(f"edge-{VERSION}", path, edges)
            return torch.from_numpy(drawn.astype(np.int64))
        return semseg(path) if task == "semseg" else sal(path)

    def _parts(self, path: Path) -> Tensor | None:
        parts = self._derived.get(f"human_parts-{VERSION}", path, human_parts)
        return None if (parts == IGNORE).all() else torch.from_numpy(parts.astype(np.int64))

    def _normals(self, path: Path, name: str, image: Path, size: tuple[int, int]) -> Tensor:
        regions = self.root / _REGIONS / f"{name}.mat"
        counts = self._derived.get(f"has_normals-{VERSION}", regions, has_normals) == 1
        vectors = coded_normals(path)
        check_size(regions, counts.shape, image, size)
        check_size(path, vectors.shape[:2], image, size)
        return unit_normals(vectors, counts)
