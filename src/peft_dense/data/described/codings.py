"""The coding that fits the kind of a task's labels."""

from __future__ import annotations

from collections.abc import Callable

from peft_dense.data.described.coding import Coding
from peft_dense.data.described.coding_classes import ClassCoding
from peft_dense.data.described.coding_metric import DepthCoding, NormalsCoding
from peft_dense.data.described.schema import TaskDescription
from peft_dense.data.sources.declared import Declared

__all__ = ["make_coding"]


def make_coding(
    task: str,
    how: TaskDescription,
    declared: Declared,
    source: str,
    foreground: Callable[[], int],
) -> Coding:
    """Make what decodes the labels of a task.

    Args:
        task: Its name.
        how: Its description.
        declared: Classes and kinds of the whole set.
        source: Where the description is from, for messages.
        foreground: Finds the value that marks a pixel, for masks without further description.

    Raises:
        DataError: If a value, colour, unit or axis in the description isn't allowed.
    """
    kind = declared.kind(task).name
    if kind == "depth":
        return DepthCoding(task, how, declared, source)
    if kind == "normals":
        return NormalsCoding(task, how, declared, source)
    return ClassCoding(task, how, declared, source, foreground)
