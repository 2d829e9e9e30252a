"""One way to open a data set of any layout, or by its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft_dense.data.described.checks import nearest
from peft_dense.data.described.folder import DescribedFolder
from peft_dense.data.described.place import place_of
from peft_dense.data.described.ready import FILE, read_description, ready_descriptions, recognise
from peft_dense.data.described.schema import Description
from peft_dense.data.labels import Item
from peft_dense.data.sources import nyud, pascal_context
from peft_dense.data.sources.declared import read_declared
from peft_dense.data.sources.files import LabelledFiles
from peft_dense.data.sources.finding import holds
from peft_dense.data.sources.folder import DenseFolder, available_tasks
from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.errors import DataError
from peft_dense.tasks import tasks as known_tasks

__all__ = ["Place", "find_place", "layout_of", "open_data", "own_layout"]

_MARKS = {"JPEGImages/": "pascal", "gt_sets/": "nyud", "images/": "folder"}
_ARCHIVES: dict[str, tuple[str, ...]] = {
    "pascal": ("semseg", "human_parts", "sal", "normals", "edge"),
    "nyud": ("semseg", "normals", "edge", "depth"),
}
"""Archives with loaders of their own, and their tasks."""

_ORDER = (*_ARCHIVES["pascal"], "depth")
_EXPECTED = (
    "Expected PASCAL_MT (JPEGImages/, ImageSets/Context/ ...), NYUD_MT (gt_sets/ ...), your own "
    "images as a DenseFolder: train.txt and val.txt with one id per line, images/<id>.jpg, and one "
    "folder of labels per task, such as semseg/<id>.png or sal/<id>.png; or any set with a "
    "dense.toml, of which `peft-dense data describe ROOT` writes a draft."
)


@dataclass(frozen=True)
class Place:
    """A data set that a user named: a folder, and its layout.

    Args:
        root: The set's folder, or the one around an archive.
        layout: ``pascal``, ``nyud`` and ``folder`` have loaders of their own; else the name of the
            description.
        description: The description, for other layouts.
        text: A name by which `find_place` finds it from any folder.

    Raises:
        DataError: It is opened, and something is missing.

    Example:
        >>> Place(Path("city"), "nyud", "city").title
        'the multi-task NYUD archive'
    """

    root: Path
    layout: str
    text: str
    description: Description | None = None

    @property
    def title(self) -> str:
        """Give a short description."""
        if self.description is None:
            return {
                "pascal": "the multi-task PASCAL-Context archive",
                "nyud": "the multi-task NYUD archive",
                "folder": "a folder of images and labels (DenseFolder)",
            }[self.layout]
        return f"a data set, read by {self.description.source}"

    def tasks(self) -> tuple[str, ...]:
        """List the tasks that it may have labels of."""
        if self.description is not None:
            how = self.description
            return tuple(
                name
                for name, each in how.tasks.items()
                if not each.optional or DescribedFolder.has_labels(each, self.root)
            )
        if self.layout in _ARCHIVES:
            return _ARCHIVES[self.layout]
        there = available_tasks(self.root)
        return (
            *(task for task in _ORDER if task in there),
            *(task for task in there if task not in _ORDER),
        )

    def splits(self) -> list[str]:
        """List its splits; of a `DenseFolder` the usual ones that it has."""
        usual = ["train", "val", "test"]
        if self.description is not None:
            found = DescribedFolder.splits_of(self.description, self.root)
            return [name for name in usual if name in found] or found or usual[:2]
        if self.layout in _ARCHIVES:
            return usual[:2]
        return [name for name in usual if (self.root / f"{name}.txt").is_file()] or usual[:2]

    def open(
        self,
        split: str,
        tasks: Sequence[str] | None = None,
        transform: Callable[[Item], Item] | None = None,
        *,
        protocol: str = "atrc",
        kinds: Mapping[str, str] | None = None,
        late: bool = False,
    ) -> LabelledFiles:
        """Open one split.

        Args:
            split: Its name.
            tasks: The labels wanted; by default the defaults of the layout's class.
            transform: Callable from item to item.
            protocol: As for `PASCALContext`.
            kinds: What kind of labels tasks of your own have, in a `DenseFolder`.
            late: For checks: open even if files are missing, and compute labels anew.
        """
        if self.layout == "folder":
            wanted = _known(self.root, kinds) if tasks is None else tasks
            own = {name: kind for name, kind in (kinds or {}).items() if name in wanted or not late}
            return DenseFolder(self.root, split, wanted, transform, kinds=own, late=late)
        if kinds:
            whose = "description gives" if self.description else "archive's tasks have"
            raise DataError(
                f"got kinds of {', '.join(kinds)} for {self.text}, whose {whose} them already; "
                "leave them out. Only a DenseFolder takes them."
            )
        if self.description is not None:
            return DescribedFolder(
                self.description, split, tasks, transform, root=self.root, late=late
            )
        chosen: dict[str, Any] = {} if tasks is None else {"tasks": tuple(tasks)}
        if self.layout == "nyud":
            return NYUDv2(self.root, split, transform=transform, **chosen)
        if late:
            return PASCALContext(self.root, split, transform=transform, cache=False, **chosen)
        return PASCALContext(self.root, split, transform=transform, protocol=protocol, **chosen)


def find_place(data: str | Path) -> Place:
    """Find the data set that a user named.

    Args:
        data: A folder; a description's file, ``.../dense.toml``; or a ready description and a
            folder, ``cityscapes:ROOT``.

    Raises:
        DataError: It is no data set, or there is no such description.

    Example:
        >>> find_place("citiscapes:/nowhere")
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: 'citiscapes:/nowhere' names no ready description; did you ...
    """
    path = Path(data).expanduser()
    name, colon, rest = str(data).partition(":")
    if colon and len(name) > 1 and not path.exists():
        if name not in ready_descriptions():
            raise DataError(
                f"{str(data)!r} names no ready description; {nearest(name, ready_descriptions())}"
            )
        return _described(read_description(name), Path(rest).expanduser(), f"{name}:")
    if path.is_file() or path.suffix == ".toml":
        return _described(read_description(path), path, "")
    if not path.is_dir():
        raise DataError(f"no folder {path}; pass the one that holds the data set.")
    if (path / FILE).is_file():
        return _described(read_description(path), path / FILE, "")
    layout = own_layout(path)
    if layout is not None:
        return Place(path, layout, str(path.resolve()))
    ready = recognise(path)
    if ready is not None and ready != "folder":
        return _described(read_description(ready), path, f"{ready}:")
    raise DataError(f"{path} is no data set: it {holds(path)}. {_EXPECTED}")


def _described(how: Description, given: Path, prefix: str) -> Place:
    return Place(place_of(how, given), how.name, f"{prefix}{given.resolve()}", how)


def own_layout(root: Path) -> str | None:
    """Recognise a layout with a loader of its own, of a folder or an archive in it; else None.

    Args:
        root: The folder.
    """
    for folder in (root, *(root / name for name in (*pascal_context.NAMES, *nyud.NAMES))):
        for mark, layout in _MARKS.items():
            if (folder / mark).is_dir() and not _is_another(folder):
                return layout
    return None


def _is_another(folder: Path) -> bool:
    """Whether it only looks like one of them: PASCAL VOC itself, or ADE20K."""
    voc = (folder / "SegmentationClass").is_dir() and not (folder / "ImageSets/Context").is_dir()
    return voc or ((folder / "annotations").is_dir() and (folder / "images" / "training").is_dir())


def layout_of(root: str | Path) -> str:
    """Give the layout of a data set.

    Args:
        root: As for `open_data`.

    Returns:
        ``pascal``, ``nyud`` or ``folder``, or the name of a description.

    Raises:
        DataError: It is no data set.

    Example:
        >>> import tempfile
        >>> from peft_dense.data import make_archive
        >>> root = tempfile.mkdtemp()
        >>> made = make_archive(root, layout="folder", train=1, val=1, size=(32, 48))
        >>> layout_of(root)
        'folder'
    """
    return find_place(root).layout


def open_data(
    root: str | Path,
    split: str,
    tasks: Sequence[str] | None = None,
    transform: Callable[[Item], Item] | None = None,
    *,
    protocol: str = "atrc",
    kinds: Mapping[str, str] | None = None,
) -> LabelledFiles:
    """Open one split of a data set on disk, by its layout or its description.

    Args:
        root: The folder; a description's file, ``.../dense.toml``; or a ready description and a
            folder, ``cityscapes:ROOT``. A folder with a ``dense.toml`` is read by that.
        split: ``train`` or ``val``, or any other that the set has.
        tasks: The labels wanted; by default the defaults of the layout's class, of a description
            all that the set has, and of a `DenseFolder` all that are registered or declared.
        transform: Callable from item to item.
        protocol: As for `PASCALContext`; the other layouts have one only.
        kinds: What kind of labels tasks of your own have, in a `DenseFolder`.

    Raises:
        DataError: It is no data set, or something of it is missing.

    Example:
        >>> import tempfile
        >>> from peft_dense.data import make_archive
        >>> root = tempfile.mkdtemp()
        >>> made = make_archive(root, layout="folder", train=1, val=1, size=(32, 48))
        >>> open_data(root, "val", ["depth"])[0]["depth"].ndim
        3
    """
    return find_place(root).open(split, tasks, transform, protocol=protocol, kinds=kinds)


def _known(root: Path, kinds: Mapping[str, str] | None) -> list[str]:
    """Give a folder's tasks that are registered or declared."""
    declared = read_declared(root, kinds or {}, {})
    named = {*known_tasks(), *declared.kinds, *declared.numbers, *declared.names}
    there = available_tasks(root)
    wanted = [name for name in there if name in named]
    if not wanted:
        raise DataError(
            f"{root} has no labels that are known by name: beside images/ it has "
            f"{', '.join(f'{name}/' for name in there) or 'no folder'}. Call label folders by "
            f"their task ({', '.join(known_tasks())}), or say what kind of labels a folder of your "
            f"own has: {there[0] if there else 'roofs'}=binary."
        )
    return wanted
