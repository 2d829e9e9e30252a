"""From a data set to the tasks that fit its labels."""

from __future__ import annotations

from typing import Any

from peft_dense.data.labels import label_kind
from peft_dense.errors import DataError
from peft_dense.tasks import Task, task

__all__ = ["names_of_tasks", "tasks_of"]


def tasks_of(data: Any) -> dict[str, Task]:
    """Make the task of every kind of label that a data set has, with as many classes as it has.

    Classes are those that the data set names or declares. In a `DenseFolder` that does neither,
    their number is one more than the largest in all labels, and their names are numbers: a
    registered task's own class names aren't used.

    Args:
        data: A data set of `peft_dense.data`, or any with ``tasks``; ``classes`` (names by task)
            and ``kinds`` (by task) where it has them.

    Raises:
        DataError: If the number of classes isn't known.

    Example:
        >>> from peft_dense.data import Scenes
        >>> {name: each.channels for name, each in tasks_of(Scenes(1, tasks=["semseg"])).items()}
        {'semseg': 7}
    """
    return {name: _task(data, name) for name in names_of_tasks(data)}


def names_of_tasks(data: Any) -> tuple[str, ...]:
    """Name the tasks that a data set has labels of: what it says, or what its first item holds.

    Args:
        data: Any data set whose items are dicts.

    Example:
        >>> names_of_tasks([{"image": 0, "sal": 1, "meta": {}}])
        ('sal',)
    """
    if hasattr(data, "tasks"):
        return tuple(data.tasks)
    return tuple(name for name in data[0] if name not in ("image", "meta"))


def _task(data: Any, name: str) -> Task:
    kind = label_kind(getattr(data, "kinds", {}).get(name, name))
    if kind.name != "segmentation":
        return task(name, kind.name)
    names = getattr(data, "classes", {}).get(name)
    if names:
        return task(name, kind.name, channels=len(names), classes=tuple(names))
    if hasattr(data, "number_of_classes"):
        number = data.number_of_classes(name)
        numbered = tuple(f"class {index}" for index in range(number))
        return task(name, kind.name, channels=number, classes=numbered)
    raise DataError(
        f"the number of classes of {name} isn't known; give the data set an attribute classes, "
        f"{{{name!r}: [names]}}."
    )
