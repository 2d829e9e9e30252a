"""Counts over the labels of one task: how often each class occurs, and how much is ignored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peft_dense.data.labels import IGNORE
from peft_dense.errors import UnknownNameError
from peft_dense.tasks import Task
from peft_dense.tasks import task as find_task
from peft_dense.tasks.segmentation import Segmentation

__all__ = ["Tally", "task_of_labels"]

_MARKS = {"sal": ("not salient", "salient"), "edge": ("no edge", "edge")}


def task_of_labels(name: str, classes: list[str] | None) -> Task:
    """Give the task that reads and draws the labels called ``name``.

    Labels without a task of their own are maps of classes. Without names of the classes, any class
    up to 254 is taken.

    Example:
        >>> task_of_labels("materials", ["wood", "glass"]).channels
        2
        >>> task_of_labels("edge", None).channels
        1
    """
    try:
        known = find_task(name)
    except UnknownNameError:
        known = find_task("semseg")
    if isinstance(known, Segmentation):
        channels = len(classes) if classes else IGNORE
        return find_task(known.name, channels=channels, classes=tuple(classes or ()))
    return known


class Tally:
    """Count what the labels of one task hold, image by image.

    Args:
        task: Name of the task.
        classes: Names of its classes, if they are known.

    Attributes:
        absent: Images without a file for the task; whoever reads the files counts them.

    Example:
        >>> tally = Tally("sal", None)
        >>> tally.add(torch.tensor([[0, 1], [1, 255]]))
        True
        >>> tally.as_dict()["ignored"], tally.as_dict()["classes"]["salient"]
        (0.25, {'share': 0.6666666666666666, 'images': 1})
    """

    def __init__(self, task: str, classes: list[str] | None) -> None:
        self.how = task_of_labels(task, classes)
        self.names = classes or _MARKS.get(task)
        self.absent = 0
        self.images = self.blank = self.valid = self.pixels = 0
        self.by_class = torch.zeros(IGNORE, dtype=torch.int64)
        self.seen = torch.zeros(IGNORE, dtype=torch.int64)
        self.low, self.high, self.towards = float("inf"), 0.0, 0

    def add(self, label: Tensor) -> bool:
        """Count one label, shaped as an item has it, and say whether any of it isn't ignored.

        Raises:
            ShapeError: If the task can't use it: wrong shape, or values it doesn't have.
        """
        read, valid = self.how.read(label[None])
        self.images += 1
        self.pixels += valid.numel()
        count = int(valid.sum())
        self.valid += count
        if count == 0:
            self.blank += 1
        elif self.how.name == "normals":
            self.towards += int((read[:, 2][valid] > 0).sum())
        elif self.how.name == "depth":
            self.low = min(self.low, read[valid].min().item())
            self.high = max(self.high, read[valid].max().item())
        else:
            found = torch.bincount(read[valid], minlength=IGNORE)
            self.by_class += found
            self.seen += found > 0
        return count > 0

    @property
    def labelled(self) -> int:
        """Images with at least one pixel that isn't ignored."""
        return self.images - self.blank

    def as_dict(self) -> dict[str, Any]:
        """Give all counts; shares of classes are of the pixels that aren't ignored."""
        about: dict[str, Any] = {
            "labelled": self.labelled,
            "without_label": self.absent,
            "wholly_ignored": self.blank,
            "ignored": 1 - self.valid / self.pixels if self.pixels else None,
        }
        if self.how.name == "normals":
            about["towards_viewer"] = self.towards / self.valid if self.valid else None
        elif self.how.name == "depth":
            about["range"] = [self.low, self.high] if self.valid else None
        else:
            about["classes"] = {
                self.name(index): {
                    "share": int(self.by_class[index]) / self.valid if self.valid else 0.0,
                    "images": int(self.seen[index]),
                }
                for index in range(IGNORE)
                if self.seen[index] or (self.names and index < len(self.names))
            }
        return about

    def name(self, index: int) -> str:
        """Give the name of a class."""
        names = self.names or ()
        return names[index] if index < len(names) else f"class {index}"
