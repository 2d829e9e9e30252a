"""A data set read where it lies, by its description."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from peft_dense.data.described.checks import nearest
from peft_dense.data.described.codings import make_coding
from peft_dense.data.described.listing import Ids, split_names
from peft_dense.data.described.patterns import SPLIT, Pattern
from peft_dense.data.described.place import declared_by, place_of
from peft_dense.data.described.readers import find_reader
from peft_dense.data.described.ready import read_description, ready_descriptions
from peft_dense.data.described.schema import Description, TaskDescription
from peft_dense.data.images import IMAGES, Picture, as_picture, read_head, read_picture, white_of
from peft_dense.data.labels import Item
from peft_dense.data.sources.declared import Declared
from peft_dense.data.sources.files import LabelledFiles
from peft_dense.data.sources.finding import holds
from peft_dense.data.sources.marks import foreground_of
from peft_dense.errors import DataError, MissingFileError
from peft_dense.tasks.kinds import LabelKind

__all__ = ["LABELS", "DescribedFolder"]

LABELS = (".png", ".npy", ".tif", ".tiff", ".bmp")
"""Endings of label files where a pattern leaves them open, in lower case."""


class DescribedFolder(LabelledFiles):
    """Read images and dense labels as they lie on disk, by a description.

    Items are those of `DenseFolder`, whatever the files hold: ``image`` ``(3, H, W)`` float32 in
    0..1, one label per task as `peft_dense.tasks.kinds` says, and ``meta``. A label that is
    missing for an image is ignored for that task.

    Args:
        description: A ``dense.toml`` or the folder that has one, a dict of the same form, the name
            of a ready description (`ready_descriptions`), or a `Description`.
        split: Name of a split.
        tasks: The tasks to read; by default all described ones that the set has.
        transform: Callable from item to item, for instance of `peft_dense.data.transforms`.
        root: The set's folder; by default what the description says, or the folder it is in.
        white: What white is in images of 16 bits, in place of the description's value.
        drawn_on: What labels of turned images were drawn on, in place of the description's value.
        late: Open even if files are missing, and say so on access.

    Shape:
        ``image``: ``(C, H, W)``; labels: ``(H, W)``, and ``(C, H, W)`` of normals and depth

    Raises:
        DataError: If a pattern matches nothing, or there is no such split or task; on access, if a
            file can't be read, holds what the description doesn't know, or has two files for an id.

    Example:
        >>> DescribedFolder("voc", "train", root="/nowhere")
        Traceback (most recent call last):
            ...
        peft_dense.errors.DataError: no folder /nowhere; ...
    """

    turn = True

    def __init__(
        self,
        description: str | Path | Mapping[str, Any] | Description,
        split: str,
        tasks: Sequence[str] | None = None,
        transform: Callable[[Item], Item] | None = None,
        *,
        root: str | Path | None = None,
        white: float | None = None,
        drawn_on: str | None = None,
        late: bool = False,
    ) -> None:
        self.description = how = read_description(description)
        folder = place_of(
            how, root if root is not None or not _is_file(description) else description
        )
        self._pattern = Pattern(how.images.pattern, IMAGES)
        self._reader = find_reader(
            how.images.reader, f"[images] of {how.source}", variable=how.images.variable
        )
        self._ids = Ids(how, folder, self._pattern, self._reader)
        super().__init__(folder, split, (), transform, self._ids.of(split))
        self._parts = self._label_parts(self._wanted(tasks))
        self.tasks = tuple(self._parts)
        self.declared = self._declare()
        self._codings = {
            task: make_coding(
                task,
                how.tasks[task],
                self.declared,
                how.source,
                lambda task=task: foreground_of(self.label_files(task)),  # type: ignore[misc]
            )
            for task in self.tasks
        }
        self.drawn_on = drawn_on or how.images.drawn_on
        self._check_labels() if late else self._check()
        self.white = white or how.images.white or self._white()

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class names by task, of those tasks whose classes have names."""
        return {t: names for t, names in self.declared.names.items() if t in self.tasks}

    @property
    def kinds(self) -> dict[str, LabelKind]:
        """What the labels of each task look like."""
        return {task: coding.kind for task, coding in self._codings.items()}

    @property
    def splits(self) -> list[str]:
        """Names of the set's splits."""
        return self.splits_of(self.description, self.root)

    def number_of_classes(self, task: str) -> int:
        """Give the described number of classes, else one more than the largest of all labels.

        Raises:
            DataError: If a label can't be read, or none holds a class.
        """
        number = self.declared.number(task)
        if number is not None:
            return number
        kind, largest = self.kinds[task], -1
        for path in self.label_files(task):
            values = self._parts[task][0].values_of(self.root, path)
            label = self._read(task, path, values)
            valid = label[label != kind.ignore]
            largest = max(largest, int(valid.max()) if len(valid) else -1)
        if largest < 0:
            place = self.root / self.description.tasks[task].labels
            raise DataError(
                f"no label in {place.parent} holds a class, so their number isn't known. Declare "
                "the classes, or add labels."
            )
        return largest + 1

    def label_files(self, task: str) -> Iterable[Path]:
        """Give all label files of a task, whatever split they belong to."""
        return self._parts[task][0].scan(self.root)

    def files(self, name: str) -> dict[str, Path]:
        """Give the files that an item is read from.

        Args:
            name: Id of an image.

        Returns:
            ``image``, and one path per task; a task without a label for this image has no entry.

        Raises:
            DataError: If there is no such image, or there are two files for one id.
        """
        values = self._ids.values(name, self.split)
        there = {"image": self._image(name)}
        for task, (pattern, _) in self._parts.items():
            path = pattern.find(self.root, values)
            if path is not None:
                there[task] = path
        return there

    def identity(self, name: str) -> str:
        """Give a name that is unique among all splits, whose folders may have the same names."""
        apart = SPLIT in self._pattern.names
        return f"{self._ids.folder(self.split)}/{name}" if apart else name

    # ------------------------------------------------------------------ opening

    def _declare(self) -> Declared:
        """Gather what is known of classes and kinds."""
        return declared_by(self.description)

    def _wanted(self, tasks: Sequence[str] | None) -> list[str]:
        """Give the tasks: those asked for, or those that the set has."""
        described = self.description.tasks
        if tasks is None:
            return [
                task
                for task, how in described.items()
                if not how.optional or self.has_labels(how, self.root)
            ]
        for task in tasks:
            if task not in described:
                raise DataError(
                    f"{self.description.source} has no task {task!r}; {nearest(task, described)}"
                )
        return list(tasks)

    @staticmethod
    def has_labels(how: TaskDescription, root: Path) -> bool:
        """Whether a folder has any label of a described task."""
        return next(iter(Pattern(how.labels, LABELS).scan(root)), None) is not None

    @staticmethod
    def splits_of(how: Description, root: Path) -> list[str]:
        """List the splits of a set: those described, or the folders that ``{split}`` is."""
        return split_names(how, root, Pattern(how.images.pattern, IMAGES))

    def _label_parts(self, tasks: Iterable[str]) -> dict[str, tuple[Pattern, Any]]:
        """Make pattern and reader of each task's labels."""
        parts = {}
        for task in tasks:
            how = self.description.tasks[task]
            place = f"[tasks.{task}] of {self.description.source}"
            pattern = Pattern(how.labels, LABELS)
            for name in pattern.names:
                if name not in (*self._ids.names, SPLIT):
                    raise DataError(
                        f"{place} has {{{name}}} in labels = {how.labels!r}, which isn't in images "
                        f"= {self._pattern.text!r}; expected names of "
                        f"{', '.join((*self._ids.names, SPLIT))}."
                    )
            reader = find_reader(how.reader, place, variable=how.variable, json=how.json)
            parts[task] = pattern, reader
        return parts

    def _check(self) -> None:
        """Check that every image is there, and each task has labels."""
        for name in self.ids:
            self._image(name)
        self._check_labels()

    def _check_labels(self) -> None:
        """Check that each task's pattern matches something."""
        for task, (pattern, _) in self._parts.items():
            found = any(
                pattern.find(self.root, self._ids.values(name, self.split)) for name in self.ids
            )
            if not found and next(iter(pattern.scan(self.root)), None) is None:
                raise self._no_labels(task, pattern)

    def _no_labels(self, task: str, pattern: Pattern) -> DataError:
        """Build the error for a pattern that matches nothing."""
        first = self.root / pattern.fill(self._ids.values(self.ids[0], self.split))
        place = first.parent
        while place != self.root and not place.is_dir():
            place = place.parent
        return DataError(
            f"no file is {self.root / pattern.text}, the labels of task {task!r} in "
            f"{self.description.source}; of the image {self.ids[0]!r} it would be {first}, and "
            f"{place} {holds(place)}. Correct the pattern, or leave the task out."
        )

    def _white(self) -> float:
        if self._reader.container:
            return 65535
        return white_of(list(self._pattern.scan(self.root)))

    # ------------------------------------------------------------------ reading

    def _found(self, name: str) -> Path | None:
        return self._pattern.find(self.root, self._ids.values(name, self.split))

    def _image(self, name: str) -> Path:
        path = self._found(name)
        if path is not None:
            return path
        place = self.root / self._pattern.fill(self._ids.values(name, self.split))
        if self._pattern.open:
            what = f"{str(place).removesuffix('.*')} with any of {', '.join(IMAGES)}"
        else:
            what = str(place)
        raise MissingFileError(f"no image {what}; add it, or take {name!r} off the list.")

    def picture(self, name: str, smallest: Sequence[int] | None = None) -> Picture:
        """Read the image of an id."""
        path = self._image(name)
        if self._reader.container:
            array = self._reader.read(
                path, self.root, self._ids.values(name, self.split), colours=True
            )
            return as_picture(array, str(path), white=self.white)
        return read_picture(path, turn=self.turn, white=self.white, smallest=smallest)

    def _head(self, name: str, path: Path) -> Picture:
        return self.picture(name) if self._reader.container else read_head(path, turn=self.turn)

    def _label(
        self, task: str, name: str, files: Mapping[str, Path], size: tuple[int, int]
    ) -> Tensor | None:
        if task not in files:
            return None
        return self._read(task, files[task], self._ids.values(name, self.split))

    def _read(self, task: str, path: Path, values: Mapping[str, str]) -> Tensor:
        coding = self._codings[task]
        array = self._parts[task][1].read(path, self.root, values, colours=coding.in_colours)
        return coding.decode(array, path)


def _is_file(given: Any) -> bool:
    """Whether a description was given as a file or folder, which is then also the root."""
    named = isinstance(given, (str, Path)) and str(given) not in ready_descriptions()
    return named and Path(given).exists()
