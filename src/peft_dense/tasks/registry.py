"""The registry of tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from peft_dense.errors import HyperparameterError, UnknownNameError
from peft_dense.tasks.base import Task
from peft_dense.tasks.kinds import KINDS, LabelKind
from peft_dense.tasks.kinds import kind as kind_by_name

__all__ = ["kind_of_labels", "register", "serves_kind", "task", "tasks"]

AnyTask = TypeVar("AnyTask", bound=Task)
_TASKS: dict[str, type[Task]] = {}
_OF_KIND: dict[str, type[Task]] = {}


def register(cls: type[AnyTask]) -> type[AnyTask]:
    """Register a task class under its ``name``.

    Args:
        cls: The class, with a ``name``.

    Raises:
        HyperparameterError: If another class has that name.

    Example:
        >>> from peft_dense.tasks.sal import Sal
        >>> register(Sal) is Sal
        True
    """
    known = _TASKS.setdefault(cls.name, cls)
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise HyperparameterError(
            f"task {cls.name!r} is {known.__module__}.{known.__qualname__} already; give "
            f"{cls.__module__}.{cls.__qualname__} another name."
        )
    _TASKS[cls.name] = cls
    return cls


def serves_kind(cls: type[AnyTask]) -> type[AnyTask]:
    """Use a task class for every unregistered task whose labels are of its kind."""
    _OF_KIND[cls.kind] = cls
    return cls


def task(name: str, kind: str | None = None, **options: Any) -> Task:
    """Make a task by name, or one of your own name by its kind of labels.

    Args:
        name: One of :func:`tasks`; with ``kind``, any name.
        kind: What kind of labels it has: ``segmentation``, ``binary``, ``edge``, ``depth`` or
            ``normals``. Not needed for a registered task.
        options: Fields of its class.

    Raises:
        UnknownNameError: If there is no such task or kind, or it has no such option.
        HyperparameterError: If an option's value isn't allowed, or a registered task is of another
            kind.

    Example:
        >>> task("semseg").channels, task("semseg", channels=59).channels
        (21, 59)
        >>> task("roofs", kind="binary").metric, task("height", kind="depth").metric
        ('IoU', 'rmse')
    """
    cls = _class_of(name, kind)
    if cls is not _TASKS.get(name):
        options = {"name": name, **options}
    known = [field.name for field in fields(cls)]
    for option in options:
        if option not in known:
            raise UnknownNameError.of(f"{name} option", option, known)
    if "channels" in _without_default(cls, options):
        raise HyperparameterError(
            f"task {name} of kind {cls.kind} needs a number of classes; pass channels=..., "
            "background included."
        )
    return cls(**options)


def kind_of_labels(name: str, kind: str | None = None, classes: int = 0) -> LabelKind:
    """Give the kind of a task's labels: as stated, or by its name, or else ``segmentation``.

    Args:
        name: Any name.
        kind: The stated kind, if any.
        classes: How many classes there are, where that is known.

    Raises:
        UnknownNameError: If there is no such kind.
        HyperparameterError: If a registered task is of another kind.

    Example:
        >>> kind_of_labels("depth").name, kind_of_labels("walls").name
        ('depth', 'segmentation')
    """
    if kind is None and name not in _TASKS:
        kind = "segmentation"
    return kind_by_name(_class_of(name, kind).kind, classes)


def _without_default(cls: type[Task], options: Mapping[str, Any]) -> list[str]:
    """Name the fields without a default that ``options`` lack."""
    needed = (f.name for f in fields(cls) if f.default is f.default_factory is MISSING)
    return [name for name in needed if name not in options]


def _class_of(name: str, kind: str | None) -> type[Task]:
    cls = _TASKS.get(name)
    if kind is not None and kind not in KINDS:
        raise UnknownNameError.of("kind of labels", kind, KINDS)
    if cls is None:
        if kind is None:
            unknown = UnknownNameError.of("task", name, _TASKS)
            raise UnknownNameError(
                f"{unknown} One of your own needs a kind of labels, {', '.join(KINDS)}: "
                f"task({name!r}, kind='binary')."
            )
        return _OF_KIND[kind]
    if kind not in (None, cls.kind):
        raise HyperparameterError(
            f"task {name} has labels of kind {cls.kind}; got kind={kind!r}. Give labels of another "
            "kind another name."
        )
    return cls


def tasks() -> list[str]:
    """List the names of all tasks.

    Example:
        >>> tasks()
        ['depth', 'edge', 'human_parts', 'normals', 'sal', 'semseg']
    """
    return sorted(_TASKS)
