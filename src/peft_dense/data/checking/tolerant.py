"""Read the items of a data set one by one, and go on after what can't be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch.utils.data import Dataset

from peft_dense.data.labels import Item
from peft_dense.data.sources.files import LabelledFiles
from peft_dense.errors import DataError, LabelSizeError, MissingFileError

__all__ = ["ProblemKind", "ReadImage", "ReadImages"]

ProblemKind = Literal["list", "missing", "unreadable", "size", "values", "labels"]
"""What can be wrong: a list; a file that is missing, unreadable, of another size than its image, or
with wrong values; or the labels of a list as a whole."""


@dataclass
class ReadImage:
    """What was found of one image.

    Args:
        name: Its id.
        item: The image and the labels that could be read.
        absent: Tasks that it has no label of, and needs none.
        troubles: ProblemKind and reason by task, or by ``image``.
        files: Where it was read.
    """

    name: str
    item: Item = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    troubles: dict[str, tuple[ProblemKind, str]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


class ReadImages(Dataset[ReadImage]):
    """Read every image with all its tasks, or, where that fails, with one task after the other.

    Args:
        open_data: Opens the data set with the tasks given.
        tasks: All tasks.
    """

    def __init__(
        self, open_data: Callable[[Sequence[str]], LabelledFiles], tasks: Sequence[str]
    ) -> None:
        self.whole = open_data(tasks)
        self.alone = {task: open_data((task,)) for task in tasks}

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> ReadImage:
        found = ReadImage(self.whole.ids[index])
        try:
            files = found.files = self.whole.files(found.name)
            found.item = self.whole[index]
        except Exception:
            self._apart(found, index)
        else:
            found.absent = tuple(task for task in self.alone if task not in files)
        for task in found.absent:
            del found.item[task]
        return found

    def _apart(self, found: ReadImage, index: int) -> None:
        """Read the image and the labels apart, so that one that fails doesn't hide the others."""
        try:
            self.whole.picture(found.name)
        except Exception as error:
            found.troubles["image"] = _trouble(error)
            return
        for task, data in self.alone.items():
            try:
                found.item |= data[index]
                if task not in data.files(found.name):
                    found.absent += (task,)
            except Exception as error:  # noqa: PERF203
                found.troubles[task] = _trouble(error)


def _trouble(error: Exception) -> tuple[ProblemKind, str]:
    """Give an error's kind of problem and its text; a damaged file may raise any error."""
    if not isinstance(error, DataError):
        return "unreadable", f"{type(error).__name__}: {error}"
    kind: ProblemKind = "values" if error.__cause__ is None else "unreadable"
    if isinstance(error, MissingFileError):
        kind = "missing"
    if isinstance(error, LabelSizeError):
        kind = "size"
    return kind, str(error)
