"""Data sets of files: an image and its labels on disk, for every id of a list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from peft_dense.data.images import Picture, read_head, read_picture
from peft_dense.data.labels import Item, blank_label, label_kind
from peft_dense.data.sources.orientation import as_shown
from peft_dense.errors import DataError, LabelSizeError, MissingFileError, UnknownNameError
from peft_dense.tasks.kinds import LabelKind

__all__ = [
    "LabelledFiles",
    "Listing",
    "by",
    "check_folders",
    "check_size",
    "find",
    "find_archive",
    "holds",
    "missing",
    "read_ids",
]


class LabelledFiles(Dataset[Item]):
    """Make items of an image file and label files; a subclass knows which, and how they read.

    An item is a dict: ``image`` ``(3, H, W)`` float32 in 0..1; one label per task, as
    `peft_dense.tasks.kinds` says; ``meta`` with ``id``, ``size`` (height and width as shown),
    ``padding`` where the data set has one, and ``kinds``, the kinds of labels that no name tells.

    A transform that says ``takes_bytes`` is given images and classes of bytes as uint8; one that
    says ``smallest``, a height and width, may be given an image decoded at a half, a quarter or an
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
        picture = read_picture(
            files["image"],
            turn=self.turn,
            white=self.white,
            smallest=getattr(self.transform, "smallest", None),
        )
        as_bytes = getattr(self.transform, "takes_bytes", False)
        item: Item = {"image": picture.pixels if as_bytes else picture.floats()}
        item |= self._labels(name, files, picture, as_bytes)
        return self.transform(item) if self.transform else item

    def labels(self, index: int) -> Item:
        """Read the labels of an item, with ``meta``, and of its image the size alone."""
        name = self.ids[index]
        files = self.files(name)
        return self._labels(name, files, read_head(files["image"], turn=self.turn))

    def _labels(
        self,
        name: str,
        files: Mapping[str, Path],
        picture: Picture,
        as_bytes: bool = False,
    ) -> Item:
        """Read all labels of an image, and say what there is to know of it."""
        size, kinds, item = picture.size, self.kinds, {}
        for task in self.tasks:
            # Of an archive, whose images aren't turned, both sizes are one.
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


class Listing:
    """Find files by id, however the case of their ending is written; folders are read once.

    Args:
        endings: What names may end in, in lower case.

    Example:
        >>> Listing((".jpg",)).find(Path("/nowhere"), "a") is None
        True
    """

    def __init__(self, endings: Sequence[str]) -> None:
        self.endings = tuple(endings)
        self._folders: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Give the file of an id in a folder, if there is one.

        Raises:
            DataError: If there are two, of which nobody can say which is meant.
        """
        place = (folder / name).parent
        found = self._read(place).get((folder / name).name, [])
        if len(found) > 1:
            raise DataError(
                f"{place} has {len(found)} files for {name!r}: {', '.join(found)}. Which one is "
                "meant can't be told; remove or rename all but one."
            )
        return place / found[0] if found else None

    def all(self, folder: Path) -> list[Path]:
        """List all files of a folder that end so, by name."""
        return [folder / file for found in self._read(folder).values() for file in found]

    def _read(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._folders:
            listed: dict[str, list[str]] = {}
            names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
            for file in names:
                stem, dot, ending = file.rpartition(".")
                if f"{dot}{ending}".lower() in self.endings:
                    listed.setdefault(stem, []).append(file)
            self._folders[folder] = listed
        return self._folders[folder]


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
