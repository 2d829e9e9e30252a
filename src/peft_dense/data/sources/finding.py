"""Find files of a data set: lists of ids, folders of labels, the file of an id."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from peft_dense.errors import DataError, LabelSizeError, MissingFileError, UnknownNameError

__all__ = [
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


def find_archive(root: str | Path, names: Sequence[str], lists: str) -> Path:
    """Find an archive's folder: ``root``, or the first of ``names`` in it.

    Args:
        root: The folder that the user gave.
        names: Possible names of the archive's folder.
        lists: The folder in it with the lists of ids, by which it is recognised.

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
        raise DataError(f"can't read {path}: {error}. It lists one image id per line.") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise DataError(f"{path} is empty; it lists one image id per line.")
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
        endings: Endings of their names, in lower case.

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
            DataError: If there are several.
        """
        place = (folder / name).parent
        found = self._read(place).get((folder / name).name, [])
        if len(found) > 1:
            raise DataError(
                f"{place} has {len(found)} files for {name!r}: {', '.join(found)}. Remove or "
                "rename all but one."
            )
        return place / found[0] if found else None

    def all(self, folder: Path) -> list[Path]:
        """List all files of a folder with these endings, by name."""
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
    """List what is in a folder, for messages.

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
