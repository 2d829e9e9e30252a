"""Decoding of files into labels by a task's description: the base of all kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from torch import Tensor

from peft_dense.data.described.schema import TaskDescription
from peft_dense.data.labels import Array
from peft_dense.data.sources.declared import Declared
from peft_dense.errors import DataError
from peft_dense.tasks.kinds import LabelKind

__all__ = ["Coding"]


class Coding(ABC):
    """Decode the labels of one task.

    Args:
        task: Its name.
        how: Its description.
        declared: Classes and kinds of the whole set.
        source: Where the description is from, for messages.

    Raises:
        DataError: If a value, colour, unit or axis in the description isn't allowed.
    """

    def __init__(self, task: str, how: TaskDescription, declared: Declared, source: str) -> None:
        self.task, self.how, self.declared = task, how, declared
        self.kind: LabelKind = declared.kind(task)
        self.place = f"[tasks.{task}] of {source}"
        self.in_colours = how.palette is not None

    @abstractmethod
    def decode(self, array: Array, path: Path) -> Tensor:
        """Turn what a file holds into a label; classes of bytes may stay bytes.

        Raises:
            DataError: If the file holds something that the description doesn't know.
        """

    def flat(self, array: Array, path: Path) -> Array:
        """Take the one channel of a grey image that was saved as RGB."""
        if array.ndim == 3 and array.shape[2] in (1, 3, 4):
            planes = array[..., : min(array.shape[2], 3)]
            if array.dtype == np.uint8 and (planes == planes[..., :1]).all():
                return np.ascontiguousarray(planes[..., 0])
            raise DataError(
                f"{path} has shape {array.shape} of {array.dtype}; class labels are one channel, "
                f"(H, W). Where colours stand for classes, give a palette in {self.place}."
            )
        return array
