"""What a call of `predict` asks for: tasks and sizes, checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from peft_dense.dense import DenseModel
from peft_dense.errors import HyperparameterError, UnknownNameError
from peft_dense.tasks import Task, task
from peft_dense.tasks import tasks as registered

__all__ = ["checked_size", "chosen_tasks"]


def chosen_tasks(
    model: DenseModel, given: Sequence[str] | Mapping[str, Task] | None
) -> dict[str, Task]:
    """Give the tasks that are asked for, each with as many channels as its head.

    Raises:
        UnknownNameError: The model hasn't one, or its name doesn't tell what its labels are.
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
                f"what the labels of task {name!r} are can't be told by its name; pass "
                f"tasks={{{name!r}: task({name!r}, kind=..., channels={model.out_channels[name]}), "
                "...} of peft_dense.tasks."
            )
    return {name: task(name, channels=model.out_channels[name]) for name in names}


def _words(given: Iterable[str]) -> Iterable[str]:
    return [given] if isinstance(given, str) else given


def checked_size(given: Sequence[int]) -> tuple[int, int]:
    """Give height and width as two numbers.

    Raises:
        HyperparameterError: They aren't two whole numbers from 1.
    """
    if len(given) != 2 or any(isinstance(n, bool) or int(n) != n or n < 1 for n in given):
        raise HyperparameterError(
            f"{tuple(given)} is no size; expected height and width in pixels, such as (448, 448)."
        )
    return int(given[0]), int(given[1])
