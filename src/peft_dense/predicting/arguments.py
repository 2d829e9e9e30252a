"""Checks of the tasks that `predict` is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from peft_dense.dense import DenseModel
from peft_dense.errors import HyperparameterError, UnknownNameError
from peft_dense.tasks import Task, task
from peft_dense.tasks import tasks as registered

__all__ = ["chosen_tasks"]


def chosen_tasks(
    model: DenseModel, given: Sequence[str] | Mapping[str, Task] | None
) -> dict[str, Task]:
    """Give the tasks that are asked for, each with as many channels as its head.

    Raises:
        UnknownNameError: No such task in the model, or one whose kind of labels isn't known.
        HyperparameterError: A task has other channels than its head.
    """
    names = model.encoder.check_tasks(None if given is None else tuple(_words(given)))
    if isinstance(given, Mapping):
        for name in names:
            if given[name].channels != model.out_channels[name]:
                raise HyperparameterError(
                    f"task {name} has channels={given[name].channels}, and its head "
                    f"{model.out_channels[name]}; pass the task that the head was made for."
                )
        return {name: given[name] for name in names}
    known = registered()
    for name in names:
        if name not in known:
            raise UnknownNameError(
                f"the name of task {name!r} doesn't tell what its labels are; pass "
                f"tasks={{{name!r}: task({name!r}, kind=..., channels={model.out_channels[name]}), "
                "...} of peft_dense.tasks."
            )
    return {name: task(name, channels=model.out_channels[name]) for name in names}


def _words(given: Iterable[str]) -> Iterable[str]:
    return [given] if isinstance(given, str) else given
