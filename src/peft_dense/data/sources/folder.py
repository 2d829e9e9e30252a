"""Your own images: one folder of images, one folder of labels per task."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from peft_dense.data.described.folder import DescribedFolder
from peft_dense.data.described.schema import Description
from peft_dense.data.labels import Item
from peft_dense.data.sources.declared import Declared, read_declared
from peft_dense.data.sources.finding import read_ids
from peft_dense.errors import DataError, UnknownNameError

__all__ = ["DenseFolder", "available_tasks", "describe_folder"]


class DenseFolder(DescribedFolder):
    """Read images and their dense labels from a folder.

    ::

        <root>/train.txt, val.txt          one id per line
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
        late: Open even if images are missing, and say so on access.

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
        late: bool = False,
    ) -> None:
        self._there = available_tasks(root)
        read_ids(Path(root), split)  # which says what is wrong with a list
        if drawn_on not in (None, "shown", "stored"):
            raise UnknownNameError.of("drawn_on", drawn_on, ("shown", "stored"))
        self._said = read_declared(Path(root), kinds or {}, classes or {})
        super().__init__(
            describe_folder(self._said, split, tasks),
            split,
            tasks,
            transform,
            root=root,
            white=white,
            drawn_on=drawn_on,
            late=late,
        )

    @property
    def splits(self) -> list[str]:
        """Names of the lists."""
        return sorted(path.stem for path in self.root.glob("*.txt"))

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, from ``classes.json`` or as given; empty without."""
        return self.declared.names

    def _declare(self) -> Declared:
        return self._said

    def _check_labels(self) -> None:
        """Check that each task has a folder, which may be empty."""
        for task in self.tasks:
            if task not in self._there:
                near = difflib.get_close_matches(task, self._there, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise DataError(
                    f"no folder of labels for task {task!r} in {self.root}; {hint}"
                    f"It has: {', '.join(self._there) or 'none'}."
                )


def describe_folder(said: Declared, split: str, tasks: Iterable[str]) -> Description:
    """Describe what `DenseFolder` reads, as any other data set is described.

    Args:
        said: What classes.json and arguments declare.
        split: Name of the list.
        tasks: The label folders.

    Raises:
        UnknownNameError: If a kind isn't one.
        HyperparameterError: If a registered task is said to be of another kind.

    Example:
        >>> describe_folder(Declared(), "train", ["sal"]).tasks["sal"].labels
        'sal/{id}.*'
    """
    parts = {}
    for task in tasks:
        kind = said.kind(task).name
        classes = said.names.get(task) or said.numbers.get(task)
        counted = {} if kind != "segmentation" or classes is None else {"classes": classes}
        parts[task] = {"labels": f"{task}/{{id}}.*", "kind": kind, **counted}
    made = Description.of(
        {
            "name": "folder",
            "images": "images/{id}.*",
            "splits": {split: f"{split}.txt"},
            "tasks": parts or {"none": {"labels": "none/{id}.*"}},
        },
        str(said.source),
    )
    return made if parts else replace(made, tasks={})


def available_tasks(root: str | Path) -> list[str]:
    """List the tasks a folder has labels for: its subfolders besides ``images``.

    Args:
        root: The folder.

    Raises:
        DataError: If there is no such folder.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("images", "depth", "semseg"):
        ...     (root / name).mkdir()
        >>> available_tasks(root)
        ['depth', 'semseg']
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"no folder {root}; pass the one that holds images/ and train.txt.")
    hidden = ("images", "__pycache__")
    names = (p.name for p in root.iterdir() if p.is_dir() and p.name not in hidden)
    return sorted(name for name in names if not name.startswith("."))
