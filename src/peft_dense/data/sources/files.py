"""Data sets of files: an image and its labels on disk, for every id of a list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.labels import Item, blank_label, read_image
from peft_dense.errors import DataError, LabelSizeError, MissingFileError, UnknownNameError

__all__ = [
    "LabelledFiles",
    "by",
    "check_folders",
    "check_size",
    "find",
    "find_archive",
    "missing",
    "read_ids",
]


class LabelledFiles(Dataset[Item]):
    """Make items of an image file and label files; a subclass knows which, and how they read.

    An item is a dict: ``image`` ``(3, H, W)`` float32 in 0..1; one label a task, as
    `peft_dense.data.labels` says; ``meta`` with ``id``, ``size`` (height and width on disk), and
    ``padding`` where the data set has one.

    Args:
        root: The folder that holds everything.
        split: Name of the list.
        tasks: The labels to read.
        transform: Callable from item to item.
        ids: The list.
    """

    padding: str | None = None
    """What a transform puts where it opens up a label: ``ignore`` or ``background``."""

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

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from: ``image``, and one a task that has a label."""
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
        image = read_image(files["image"])
        size = (image.shape[-2], image.shape[-1])
        item: Item = {"image": image}
        for task in self.tasks:
            label = self._label(task, name, files, size)
            if label is None:
                label = blank_label(task, *size)
            else:
                check_size(files[task], label.shape[-2:], files["image"], size)
            item[task] = label
        item["meta"] = {"id": name, "size": size}
        if self.padding is not None:
            item["meta"]["padding"] = self.padding
        return self.transform(item) if self.transform else item


def find_archive(root: str | Path, names: Sequence[str], lists: str) -> Path:
    """Find an archive's folder: ``root``, or the first of ``names`` in it.

    Args:
        root: What the user gave.
        names: What the archive's folder may be called.
        lists: The folder in it that tells it from others: the one with the lists of ids.

    Raises:
        DataError: If neither holds ``lists``.
    """
    root = Path(root)
    for folder in (root, *(root / name for name in names)):
        if (folder / lists).is_dir():
            return folder
    known = " or ".join(f"{name}/" for name in names)
    raise DataError(
        f"no folder {lists} in {root}, nor in {known} there; it {holds(root)}. Pass the unpacked "
        f"{known}, or the folder that holds it."
    )


def read_ids(folder: Path, split: str) -> list[str]:
    """Read a list of ids, ``<folder>/<split>.txt``, one a line.

    Raises:
        DataError: If there is no such list, it can't be read, or it is empty.
    """
    path = folder / f"{split}.txt"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) or "none"
        raise DataError(f"no list {path} for split {split!r}; there are: {there}.")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"can't read {path}: {error}. It lists one image id a line.") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path} is empty; it lists one image id a line.")
    return ids


def check_folders(
    root: Path, tasks: Iterable[str], folders: Mapping[str, Sequence[Collection[str]]]
) -> None:
    """Check that an archive has the folders of labels that tasks need.

    Args:
        root: The archive's folder.
        tasks: The tasks wanted.
        folders: By task, what it needs: of each collection one folder.

    Raises:
        UnknownNameError: If a task isn't in ``folders``.
        DataError: If a folder is missing; it says what the archive has.
    """
    for task in tasks:
        if task not in folders:
            raise UnknownNameError.of("task", task, folders)
        for any_of in folders[task]:
            if not any((root / folder).is_dir() for folder in any_of):
                raise DataError(
                    f"no folder {' or '.join(sorted(any_of))} in {root}, which task {task!r} "
                    f"needs; it {holds(root)}. Unpack the archive whole, or leave the task out."
                )


def check_size(path: Path, shape: Sequence[int], image: Path, size: Sequence[int]) -> None:
    """Check that the label read from ``path`` has the height and width of its image.

    Raises:
        LabelSizeError: If not; it names both files and sizes.
    """
    if tuple(shape) != tuple(size):
        raise LabelSizeError(
            f"label {path} is {by(shape)}, its image {by(size)} (height x width): {image}. A label "
            "has the size of its image: resample it, nearest."
        )


def find(folder: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """Give the first of ``<folder>/<name><suffix>`` that is a file."""
    paths = (folder / f"{name}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def missing(name: str, task: str, paths: Iterable[Path]) -> MissingFileError:
    """Build the error for an image without a file for a task.

    Example:
        >>> print(missing("2008_000002", "sal", [Path("sal_distill/2008_000002.png")]))
        '2008_000002' has no file for 'sal': sal_distill/2008_000002.png isn't there. ...
    """
    return MissingFileError(
        f"{name!r} has no file for {task!r}: {' nor '.join(map(str, paths))} isn't there. Unpack "
        f"the archive anew, or take {name!r} off the list."
    )


def holds(folder: Path) -> str:
    """Say what is in a folder.

    Example:
        >>> holds(Path("/nowhere"))
        "doesn't exist"
    """
    if not folder.is_dir():
        return "doesn't exist"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"holds {', '.join(names[:12]) or 'nothing'}{more}"


def by(shape: Sequence[int]) -> str:
    """Write a height and a width.

    Example:
        >>> by((375, 500))
        '375 x 500'
    """
    return " x ".join(map(str, shape))
