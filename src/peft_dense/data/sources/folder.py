"""People's own images: one folder of images, one folder of labels per task."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from peft_dense.data.images import IMAGES
from peft_dense.data.labels import Item, as_label, read_array
from peft_dense.data.sources.declared import read_declared
from peft_dense.data.sources.files import LabelledFiles
from peft_dense.data.sources.finding import Listing, read_ids
from peft_dense.data.sources.marks import decode_marks, foreground_of
from peft_dense.errors import DataError, MissingFileError, UnknownNameError
from peft_dense.tasks.kinds import LabelKind

__all__ = ["DenseFolder", "available_tasks"]

_LABELS = (".png", ".npy", ".tif", ".tiff", ".bmp")


class DenseFolder(LabelledFiles):
    """Read images and their dense labels from a folder.

    ::

        <root>/train.txt, val.txt          one id a line
               images/<id>.jpg             or .jpeg .png .tif .webp .bmp .npy, also in capitals
               <task>/<id>.png             or .npy .tif .bmp; missing for an image: ignored
               classes.json                optional: {task: [class names]}, {task: number of
                                           classes}, or {task: kind of labels}

    An item is a dict: ``image`` ``(3, H, W)`` float32 in 0..1 (of other files as many channels as
    they have, see `peft_dense.data.images`); one label per task; ``meta`` with ``id`` and ``size``
    (height and width as shown). `peft_dense.data.labels` says what labels look like on disk, by
    their kind. Masks of 0 and 255 alone are read as background and foreground
    (`peft_dense.data.sources.marks`). Images are turned as their EXIF orientation says, and labels
    that were drawn on the stored pixels with them (`peft_dense.data.sources.orientation`).

    Args:
        root: The folder.
        split: Name of a list in it: ``train`` reads ``train.txt``.
        tasks: The label folders to read.
        transform: Callable from item to item, for instance of `peft_dense.data.transforms`.
        kinds: What kind of labels tasks of your own have (`peft_dense.tasks.kinds`); maps of
            classes, if neither this nor classes.json says.
        classes: Class names or their number by task, in place of those in classes.json.
        white: What white is in images of 16 bits; 4095 for 12 bits. By default the smallest of
            1023, 4095, 16383 and 65535 that some images spread over the folder don't exceed.
        drawn_on: Whether labels were drawn on images as they are ``shown`` or as they are
            ``stored``, where these differ and sizes don't tell.

    Raises:
        DataError: If the list, an image it names or a task's folder isn't there, or, on access, a
            file can't be read, a label has another size than its image, or holds a class beyond
            the declared.
        HyperparameterError: If a registered task is said to be of another kind.

    Example:
        >>> DenseFolder("/nowhere", "train", ["semseg"])
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: no folder /nowhere; pass the one that holds images/ ...
    """

    turn = True

    def __init__(
        self,
        root: str | Path,
        split: str,
        tasks: Sequence[str],
        transform: Callable[[Item], Item] | None = None,
        *,
        kinds: Mapping[str, str] | None = None,
        classes: Mapping[str, int | Sequence[str]] | None = None,
        white: float | None = None,
        drawn_on: str | None = None,
    ) -> None:
        there = available_tasks(root)
        super().__init__(Path(root), split, tasks, transform, read_ids(Path(root), split))
        if drawn_on not in (None, "shown", "stored"):
            raise UnknownNameError.of("drawn_on", drawn_on, ("shown", "stored"))
        self.drawn_on = drawn_on
        self._images, self._label_files = Listing(IMAGES), Listing(_LABELS)
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
        self.declared = read_declared(self.root, kinds or {}, classes or {})
        self._kinds = {task: self.declared.kind(task) for task in self.tasks}
        self._foreground = {
            task: foreground_of(self._label_files.all(self.root / task))
            for task, kind in self._kinds.items()
            if kind.marks
        }
        self.white = white or white_of(self._images.all(self.root / "images"))

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, from ``classes.json`` or as given; empty without."""
        return self.declared.names

    @property
    def kinds(self) -> dict[str, LabelKind]:
        """What the labels of each task look like."""
        return self._kinds

    def number_of_classes(self, task: str) -> int:
        """Give the declared number of classes, else one more than the largest of all labels.

        Raises:
            DataError: If no label can be read, or it holds what classes can't be.
        """
        declared = self.declared.number(task)
        if declared is not None:
            return declared
        kind, largest = self.kinds[task], -1
        for path in self._label_files.all(self.root / task):
            label = as_label(read_array(path), kind, path)
            valid = label[label != kind.ignore]
            largest = max(largest, int(valid.max()) if len(valid) else -1)
        if largest < 0:
            raise DataError(f"no label in {self.root / task} holds a class; there is none to tell.")
        return largest + 1

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from.

        Args:
            name: Id of an image.

        Returns:
            ``image``, and one path per task; a task without a label for this image has no entry.

        Raises:
            DataError: If there is no such image, or there are two files for one id.
        """
        labels = {task: self._label_files.find(self.root / task, name) for task in self.tasks}
        there = {task: path for task, path in labels.items() if path is not None}
        return {"image": self._image(name), **there}

    def _image(self, name: str) -> Path:
        path = self._images.find(self.root / "images", name)
        if path is None:
            raise MissingFileError(
                f"no image {self.root / 'images' / name} with any of {', '.join(IMAGES)}; add "
                f"it, or take {name!r} off the list."
            )
        return path

    def _label(
        self, task: str, name: str, files: Mapping[str, Path], size: tuple[int, int]
    ) -> Tensor | None:
        if task not in files:
            return None
        path, kind = files[task], self.kinds[task]
        array = read_array(path)
        if kind.marks:
            array = decode_marks(array, self._foreground[task], path)
        label = as_label(array, kind, path, narrow=True)
        if kind.name == "segmentation":
            self.declared.check(task, label, kind, path)
        return label


def white_of(paths: Sequence[Path]) -> float:
    """Say what white is in a folder's images of 16 bits, from up to 32 of them.

    Cameras of 10, 12 or 14 bits write 16-bit files whose values end there. So it is the smallest of
    1023, 4095, 16383 and 65535 that none of those images exceeds; without such images, 65535.
    """
    largest = max((_peak(path) for path in paths[:: -(-len(paths) // 32) or 1]), default=0)
    return next((top for top in (1023, 4095, 16383) if 255 < largest <= top), 65535)


def _peak(path: Path) -> int:
    """Give the largest value of an image of 16 bits, of others 0."""
    try:
        if path.suffix.lower() == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return int(array.max()) if array.dtype == np.uint16 else 0
        with Image.open(path) as image:
            deep = image.mode.startswith("I")
            return int(np.asarray(image).max()) if deep else 0
    except Exception:  # whoever reads it says what is wrong with it
        return 0


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
