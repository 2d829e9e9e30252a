"""People's own images: one folder of images, one folder of labels a task."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.labels import Item, blank_label, read_image, read_label
from peft_dense.errors import DataError

__all__ = ["DenseFolder", "available_tasks", "collate"]

_IMAGES = (".jpg", ".jpeg", ".png")
_LABELS = (".png", ".npy")


class DenseFolder(Dataset[Item]):
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
        self.root = Path(root)
        self.split = split
        self.tasks = tuple(tasks)
        self.transform = transform
        self.ids = _read_split(self.root, split)
        self._images = [_image_path(self.root, name) for name in self.ids]
        there = available_tasks(self.root)
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

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Item:
        name, path = self.ids[index], self._images[index]
        image = read_image(path)
        height, width = image.shape[-2:]
        item: Item = {"image": image}
        for task in self.tasks:
            item[task] = self._label(task, name, height, width)
        item["meta"] = {"id": name, "size": (height, width)}
        return self.transform(item) if self.transform else item

    def _label(self, task: str, name: str, height: int, width: int) -> Tensor:
        path = _find(self.root / task, name, _LABELS)
        if path is None:
            return blank_label(task, height, width)
        label = read_label(path, task)
        if label.shape[-2:] != (height, width):
            raise DataError(
                f"label {path} is {_by(label.shape[-2:])}, its image {_by((height, width))} "
                "(height x width); a label has the size of its image: resample it, nearest."
            )
        return label


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
            f"images of {' and '.join(_by(size) for size in sizes[:3])} (height x width) can't be "
            "stacked; give the data set transform=Resize((height, width)), or use batches of one."
        )
    return {
        name: [item[name] for item in items]
        if name == "meta"
        else torch.stack([item[name] for item in items])
        for name in items[0]
    }


def _read_split(root: Path, split: str) -> list[str]:
    available_tasks(root)  # says so if the folder itself is missing
    path = root / f"{split}.txt"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in root.glob("*.txt"))) or "none"
        raise DataError(f"no list {path} for split {split!r}; there are: {there}.")
    ids = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not ids:
        raise DataError(f"{path} is empty; it lists one image id a line.")
    return ids


def _image_path(root: Path, name: str) -> Path:
    path = _find(root / "images", name, _IMAGES)
    if path is None:
        raise DataError(
            f"no image {root / 'images' / name} with any of {', '.join(_IMAGES)}; add it, or take "
            f"{name!r} off the list."
        )
    return path


def _find(folder: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    paths = (folder / f"{name}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"
