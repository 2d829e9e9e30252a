"""The register of tasks: from a name to a task."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from peft_dense.errors import HyperparameterError, UnknownNameError
from peft_dense.tasks.base import Task

__all__ = ["register", "task", "tasks"]

AnyTask = TypeVar("AnyTask", bound=Task)
_TASKS: dict[str, type[Task]] = {}


def register(cls: type[AnyTask]) -> type[AnyTask]:
    """Make a task class known by its ``name``.

    Raises:
        HyperparameterError: If another class has that name.
    """
    known = _TASKS.setdefault(cls.name, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise HyperparameterError(
            f"task {cls.name!r} is {known.__module__}.{known.__qualname__} already; give "
            f"{cls.__module__}.{cls.__qualname__} another name."
        )
    _TASKS[cls.name] = cls
    return cls


def task(name: str, **options: Any) -> Task:
    """Make a task by name.

    Args:
        name: One of :func:`tasks`.
        options: Fields of its class.

    Raises:
        UnknownNameError: If there is no such task, or it has no such option.
        HyperparameterError: If an option's value can't be.

    Example:
        >>> task("semseg").channels, task("semseg", channels=59).channels
        (21, 59)
    """
    if name not in _TASKS:
        raise UnknownNameError.of("task", name, _TASKS)
    known = [field.name for field in fields(_TASKS[name])]
    for option in options:
        if option not in known:
            raise UnknownNameError.of(f"{name} option", option, known)
    return _TASKS[name](**options)


def tasks() -> list[str]:
    """List the names of all tasks.

    Example:
        >>> tasks()
        ['depth', 'edge', 'human_parts', 'normals', 'sal', 'semseg']
    """
    return sorted(_TASKS)
