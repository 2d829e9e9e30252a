"""Counts over the labels of one task: how often each class occurs, and how much is ignored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peft_dense.data.checking.findings import Finding, depth_doubt
from peft_dense.data.sources.declared import Declared
from peft_dense.tasks import Task
from peft_dense.tasks import task as find_task
from peft_dense.tasks.kinds import IGNORE, LabelKind
from peft_dense.tasks.registry import kind_of_labels

__all__ = ["Tally", "task_of_labels"]

_MARKS = {
    "sal": ("not salient", "salient"),
    "edge": ("no edge", "edge"),
    "binary": ("not marked", "marked"),
}


def task_of_labels(
    name: str,
    classes: list[str] | None = None,
    kind: LabelKind | None = None,
    number: int | None = None,
) -> Task:
    """Give the task that reads and draws the labels called ``name``.

    Labels without a task of their own are maps of classes, unless their kind says otherwise.
    Without names or a number of classes, any class up to 254 is taken.

    Example:
        >>> task_of_labels("materials", ["wood", "glass"]).channels
        2
        >>> task_of_labels("edge").channels
        1
    """
    kind = kind or kind_of_labels(name)
    if kind.name != "segmentation":
        return find_task(name, kind.name)
    channels = len(classes) if classes else number or IGNORE
    return find_task(name, kind.name, channels=channels, classes=tuple(classes or ()))


class Tally:
    """Count what the labels of one task hold, image by image.

    Args:
        name: Name of the task.
        classes: Names of its classes, if they are known.
        kind: Kind of its labels; by default the task's own.
        number: Number of classes, if it is known.
        declared: What the data set declares, for the remedies in findings.

    Attributes:
        task: The task that reads the labels.
        absent: Images without a file for the task, counted by the caller.

    Example:
        >>> tally = Tally("sal")
        >>> tally.add(torch.tensor([[0, 1], [1, 255]]))
        True
        >>> tally.as_dict()["ignored"], tally.as_dict()["classes"]["salient"]
        (0.25, {'share': 0.6666666666666666, 'images': 1})
    """

    def __init__(
        self,
        name: str,
        classes: list[str] | None = None,
        kind: LabelKind | None = None,
        number: int | None = None,
        declared: Declared | None = None,
    ) -> None:
        self.says = declared or Declared()
        self.task = task_of_labels(name, classes, kind, number)
        self.kind = self.task.labels
        self.declared = self.kind.name != "segmentation" or bool(classes or number)
        self.names = classes or _MARKS.get(name, _MARKS.get(self.kind.name))
        self.absent = 0
        self.images = self.blank = self.valid = self.pixels = 0
        size = 2 if self.kind.marks else self.task.channels
        self.by_class = torch.zeros(size, dtype=torch.int64)
        self.seen = torch.zeros(size, dtype=torch.int64)
        self.low, self.high, self.towards = float("inf"), 0.0, 0
        self.doubt: tuple[str, Path | None] | None = None
        self.folder: Path | None = None

    def add(self, label: Tensor, file: Path | None = None) -> bool:
        """Count one label, as items have it, and tell whether any pixel isn't ignored.

        Args:
            label: The label.
            file: Its file, for `findings`.

        Raises:
            ShapeError: If the task can't use it: wrong shape, or values it doesn't have.
        """
        self.task.check_values(label[None])
        read, valid = self.task.read(label[None])
        self.folder = self.folder or (file.parent if file else None)
        self.images += 1
        self.pixels += valid.numel()
        count = int(valid.sum())
        self.valid += count
        if count == 0:
            self.blank += 1
        elif self.kind.name == "normals":
            self.towards += int((read[:, 2][valid] > 0).sum())
        elif self.kind.name == "depth":
            found = read[valid]
            self.low = min(self.low, found.min().item())
            self.high = max(self.high, found.max().item())
            doubt = self.doubt is None and depth_doubt(found)
            if doubt:
                self.doubt = doubt, file
        else:
            counts = torch.bincount(read[valid], minlength=len(self.by_class))
            self.by_class += counts
            self.seen += counts > 0
        return count > 0

    @property
    def labelled(self) -> int:
        """Images with at least one pixel that isn't ignored."""
        return self.images - self.blank

    def findings(self) -> Iterator[Finding]:
        """Give what makes the labels look wrong as a whole."""
        name, all_of = self.task.name, f"{self.images} labels looked at"
        where = self.folder or name
        if self.valid == 0:
            reason = f"no pixel of the {all_of} counts" if self.images else "there is no label"
            yield Finding(
                name,
                "no label",
                f"{where}: {reason}, and nothing can be learned or scored. Add labels, or leave "
                f"the task out. ({self.kind.ignore} marks a pixel without a label.)",
                self.folder,
            )
        elif self.kind.marks and not self.by_class[1]:
            yield Finding(
                name,
                "no positive",
                f"{where}: none of the {all_of} marks a pixel; they hold 0, and 255 where "
                "ignored. Expected 1 where marked, or masks of 0 and 255 alone in the whole "
                "folder.",
                self.folder,
            )
        elif self.kind.name == "segmentation" and int((self.by_class > 0).sum()) == 1:
            yield self._one_class(all_of)
        if self.doubt is not None:
            reason, file = self.doubt
            yield Finding(
                name,
                "depth unit",
                f"{file or name} {reason} {self.says.remedy_of_depth(name)}",
                file,
                serious=False,
            )
        if not self.declared and self.valid:
            last = int(self.by_class.nonzero().max())
            yield Finding(
                name,
                "undeclared",
                f"{where}: no names or number of classes; 0 to {last} are in the {all_of}. "
                f"{self.says.remedy(name, last + 1)}",
                self.folder,
                serious=False,
            )

    def _one_class(self, all_of: str) -> Finding:
        (only,) = self.by_class.nonzero().flatten().tolist()
        name = self.task.name
        return Finding(
            name,
            "one class",
            f"{self.folder or name}: the {all_of} hold nothing but {self.name(only)} ({only}) "
            f"where they aren't ignored ({self.kind.ignore}). Expected several classes; "
            f"masks of 0 and 255 are a task of kind binary: {name}=binary.",
            self.folder,
        )

    def as_dict(self) -> dict[str, Any]:
        """Give all counts; shares of classes are of the pixels that aren't ignored."""
        about: dict[str, Any] = {
            "labelled": self.labelled,
            "without_label": self.absent,
            "wholly_ignored": self.blank,
            "ignored": 1 - self.valid / self.pixels if self.pixels else None,
        }
        if self.kind.name == "normals":
            about["towards_viewer"] = self.towards / self.valid if self.valid else None
        elif self.kind.name == "depth":
            about["range"] = [self.low, self.high] if self.valid else None
        else:
            about["classes"] = {
                self.name(index): {
                    "share": int(self.by_class[index]) / self.valid if self.valid else 0.0,
                    "images": int(self.seen[index]),
                }
                for index in range(len(self.by_class))
                if self.seen[index] or (self.names and index < len(self.names))
            }
        return about

    def name(self, index: int) -> str:
        """Give the name of a class."""
        names = self.names or ()
        return names[index] if index < len(names) else f"class {index}"
