"""People's own images: one folder of images, one folder of labels a task."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from peft_dense.data.labels import Item, read_label
from peft_dense.data.sources.files import LabelledFiles, by, find, read_ids
from peft_dense.errors import DataError, MissingFileError

__all__ = ["DenseFolder", "available_tasks", "collate"]

_IMAGES = (".jpg", ".jpeg", ".png")
_LABELS = (".png", ".npy")


class DenseFolder(LabelledFiles):
    """Read images and their dense labels from a folder.

    ::

        <root>/train.txt, val.txt          one id a line
               images/<id>.jpg | .png
               <task>/<id>.png | .npy      missing for an image: ignored for that task
               classes.json                optional, {task: [class names]}

    An item is a dict: ``image`` ``(3, H, W)`` float32 in 0..1; one label a task; ``meta`` with
    ``id`` and ``size`` (height and width on disk). `peft_dense.data.labels` says what a label of
    each task looks like, on disk and in the item.

    Args:
        root: The folder.
        split: Name of a list in it: ``train`` reads ``train.txt``.
        tasks: The label folders to read.
        transform: Callable from item to item, for instance of `peft_dense.data.transforms`.

    Raises:
        DataError: If the list, an image it names or a task's folder isn't there, or, on access, a
            file can't be read or a label has another size than its image.

    Example:
        >>> DenseFolder("/nowhere", "train", ["semseg"])
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: no folder /nowhere; pass the one that holds images/ ...
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        tasks: Sequence[str],
        transform: Callable[[Item], Item] | None = None,
    ) -> None:
        there = available_tasks(root)
        super().__init__(Path(root), split, tasks, transform, read_ids(Path(root), split))
        for name in self.ids:
            self._image(name)
        for task in self.tasks:
            if task not in there:
                near = difflib.get_close_matches(task, there, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise DataError(
                    f"no folder of labels for task {task!r} in {self.root}; {hint}"
                    f"It has: {', '.join(there) or 'none'}."
                )

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, from ``classes.json``; empty without that file."""
        path = self.root / "classes.json"
        if not path.exists():
            return {}
        try:
            return {task: list(names) for task, names in json.loads(path.read_text()).items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{path} isn't JSON of the form {{task: [names]}}: {error}.") from error

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from.

        Args:
            name: Id of an image.

        Returns:
            ``image``, and one path a task; a task without a label for this image has no entry.

        Raises:
            DataError: If there is no such image.
        """
        labels = {task: find(self.root / task, name, _LABELS) for task in self.tasks}
        there = {task: path for task, path in labels.items() if path is not None}
        return {"image": self._image(name), **there}

    def _image(self, name: str) -> Path:
        path = find(self.root / "images", name, _IMAGES)
        if path is None:
            raise MissingFileError(
                f"no image {self.root / 'images' / name} with any of {', '.join(_IMAGES)}; add "
                f"it, or take {name!r} off the list."
            )
        return path

    def _label(
        self, task: str, name: str, files: Mapping[str, Path], size: tuple[int, int]
    ) -> Tensor | None:
        return read_label(files[task], task) if task in files else None


def available_tasks(root: str | Path) -> list[str]:
    """List the tasks a folder has labels for: its subfolders besides ``images``.

    Raises:
        DataError: If there is no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no folder {root}; pass the one that holds images/ and train.txt.")
    hidden = ("images", "__pycache__")
    names = (p.name for p in root.iterdir() if p.is_dir() and p.name not in hidden)
    return sorted(name for name in names if not name.startswith("."))


def collate(items: Sequence[Item]) -> Item:
    """Stack items into a batch; ``meta`` becomes a list.

    Shape:
        ``B`` times ``(..., H, W) -> (B, ..., H, W)`` for every entry

    Raises:
        DataError: If the images differ in size.

    Example:
        >>> item = {"image": torch.rand(3, 4, 4), "meta": {"id": "a"}}
        >>> batch = collate([item, item])
        >>> batch["image"].shape, len(batch["meta"])
        (torch.Size([2, 3, 4, 4]), 2)
    """
    sizes = sorted({tuple(item["image"].shape[-2:]) for item in items})
    if len(sizes) > 1:
        raise DataError(
            f"images of {' and '.join(by(size) for size in sizes[:3])} (height x width) can't be "
            "stacked; give the data set transform=Resize((height, width)), or use batches of one."
        )
    return {
        name: [item[name] for item in items]
        if name == "meta"
        else torch.stack([item[name] for item in items])
        for name in items[0]
    }
