"""Data sets of files: an image and its labels on disk, for every id of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.images import Picture, read_head, read_picture
from peft_dense.data.labels import Item, blank_label, label_kind
from peft_dense.data.sources.finding import check_size
from peft_dense.data.sources.orientation import as_shown
from peft_dense.tasks.kinds import LabelKind

__all__ = ["LabelledFiles"]


class LabelledFiles(Dataset[Item]):
    """Make items of an image file and label files; a subclass finds and reads them.

    An item is a dict: ``image`` ``(3, H, W)`` float32 in 0..1; one label per task, as
    `peft_dense.tasks.kinds` says; ``meta`` with ``id``, ``size`` (height and width as shown),
    ``padding`` where the data set has one, and ``kinds`` of tasks that aren't registered.

    A transform with ``takes_bytes`` is given images and classes of bytes as uint8; one with
    ``smallest``, a height and width, may be given an image decoded at a half, a quarter or an
    eighth of its size, if that has so many pixels (its labels keep their size).

    Args:
        root: The folder that holds everything.
        split: Name of the list.
        tasks: The labels to read.
        transform: Callable from item to item.
        ids: The list.
    """

    padding: str | None = None
    """What a transform puts where it opens up a label: ``ignore`` or ``background``."""

    turn: bool = False
    """Whether images are turned as their EXIF orientation says; archives are as they are stored."""

    drawn_on: str | None = None
    """What labels were drawn on, ``shown`` or ``stored`` pixels; None: what their size tells."""

    white: float = 65535
    """What white is in images of 16 bits."""

    def __init__(
        self,
        root: Path,
        split: str,
        tasks: Iterable[str],
        transform: Callable[[Item], Item] | None,
        ids: list[str],
    ) -> None:
        self.root = root
        self.split = split
        self.tasks = tuple(tasks)
        self.transform = transform
        self.ids = ids

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task."""
        return {}

    @property
    def kinds(self) -> dict[str, LabelKind]:
        """What the labels of each task look like."""
        return {task: label_kind(task) for task in self.tasks}

    def identity(self, name: str) -> str:
        """Give a name that is unique among all splits; in one folder, ids are."""
        return name

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from: ``image``, and one per task with a label."""
        raise NotImplementedError

    def _label(
        self, task: str, name: str, files: Mapping[str, Path], size: tuple[int, int]
    ) -> Tensor | None:
        """Read the label of a task, or give None where all of it is ignored."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Item:
        name = self.ids[index]
        files = self.files(name)
        picture = self.picture(name, getattr(self.transform, "smallest", None))
        as_bytes = getattr(self.transform, "takes_bytes", False)
        item: Item = {"image": picture.pixels if as_bytes else picture.floats()}
        item |= self._labels(name, files, picture, as_bytes)
        return self.transform(item) if self.transform else item

    def labels(self, index: int) -> Item:
        """Read the labels of an item and ``meta``; of its image only the size."""
        name = self.ids[index]
        files = self.files(name)
        return self._labels(name, files, self._head(name, files["image"]))

    def picture(self, name: str, smallest: Sequence[int] | None = None) -> Picture:
        """Read the image of an id.

        Args:
            name: The id.
            smallest: Height and width that are enough.

        Raises:
            DataError: If it can't be read.
        """
        path = self.files(name)["image"]
        return read_picture(path, turn=self.turn, white=self.white, smallest=smallest)

    def _head(self, name: str, path: Path) -> Picture:
        """Read size and orientation of an image."""
        return read_head(path, turn=self.turn)

    def _labels(
        self,
        name: str,
        files: Mapping[str, Path],
        picture: Picture,
        as_bytes: bool = False,
    ) -> Item:
        """Read all labels of an image, and its ``meta``."""
        size, kinds, item = picture.size, self.kinds, {}
        for task in self.tasks:
            label = self._label(task, name, files, picture.size)
            if label is None:
                label = blank_label(kinds[task], *size)
            elif picture.orientation != 1:
                label = as_shown(
                    label, kinds[task], picture, files[task], files["image"], self.drawn_on
                )
            if label.shape[-2:] != size:
                check_size(files[task], label.shape[-2:], files["image"], size)
            item[task] = label.long() if kinds[task].counted and not as_bytes else label
        about: dict[str, Any] = {"id": name, "size": size}
        if self.padding is not None:
            about["padding"] = self.padding
        own = {task: kind for task, kind in kinds.items() if kind != label_kind(task)}
        if own:
            about["kinds"] = own
        return {**item, "meta": about}
