"""Add, remove and extract tasks, and merge adapters; nothing else changes by one bit."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from peft_dense import ownership
from peft_dense.backbones.clone import clone
from peft_dense.errors import HyperparameterError, UnsupportedModelError
from peft_dense.nn import TaskDict

if TYPE_CHECKING:
    from peft_dense.adapted import AdaptedBackbone

__all__ = ["add_task", "check_names", "extract_task", "merge", "remove_task"]


def check_names(tasks: object) -> tuple[str, ...]:
    """Give the names of tasks as a tuple, in their order.

    Raises:
        HyperparameterError: They aren't distinct non-empty strings in a list, tuple or dict.
    """
    given = (tasks,) if isinstance(tasks, str) else tasks
    names = tuple(given) if isinstance(given, (list, tuple, dict)) else ()
    whole = all(isinstance(name, str) and name for name in names)
    if not names or not whole or len(set(names)) != len(names):
        order = " A set has no order: give a list." if isinstance(given, (set, frozenset)) else ""
        raise HyperparameterError(
            f"tasks={tasks!r}; expected at least one name, in a list, each a non-empty string and "
            f"each once.{order}"
        )
    return names


@torch.inference_mode(False)
@torch.enable_grad()
def add_task(adapted: AdaptedBackbone, name: str) -> None:
    """Add a task in place: its parts of what is shared, and its path where tasks have their own."""
    check_names([name])
    if name in adapted.tasks:
        raise HyperparameterError(f"task {name!r} is there already; name each task once.")
    adapted.check_not_merged("given tasks")
    there = [s for s in ownership.slots(adapted) if s.tensor.is_floating_point()]
    # New adapters are like those that are there, which needn't be like the backbone.
    like = next((s for s in there if not s.frozen), there[0]).tensor
    tensors = {} if adapted.method.one_path else _start(adapted, like)
    try:
        for module in list(adapted.modules()):
            parts = getattr(module, "tasks", None)
            if isinstance(parts, TaskDict) and len(
                parts
            ):  # an adapter without tasks needs no new one
                module.add_task(name)  # type: ignore[operator]
        if not adapted.method.one_path:
            adapted.paths[name] = adapted.new_path((name,), tensors)
        ownership.settle(adapted, like, {id(slot.tensor) for slot in there})
    except BaseException:  # memory ran out, or the user interrupted: half a task is none
        _forget(adapted, name)
        raise
    adapted.tasks = (*adapted.tasks, name)
    adapted.train(adapted.training)


def _start(adapted: AdaptedBackbone, like: Tensor) -> dict[str, Tensor]:
    """Give the backbone's tensors for a new path: the shared ones, and copies of the original's."""
    pattern = adapted.pattern
    names = [n for n, _ in (*pattern.named_parameters(), *pattern.named_buffers())]
    frozen, tensors = ownership.frozen_tensors(adapted), adapted.backbone_tensors()
    lost = [n for n in names if n not in frozen and (adapted.replaced or tensors[n].is_meta)]
    if lost and not like.is_meta:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise UnsupportedModelError(
            f"a new task of {adapted.method.name} starts from the backbone's own {lost[0]}{more}, "
            "and the model given to inject holds other values than those loaded since. Load the "
            "weights into the backbone first, then inject."
        )
    return {
        name: tensors[name] if name in frozen else _copy_of(tensors[name], like) for name in names
    }


def _copy_of(tensor: Tensor, like: Tensor) -> Tensor:
    kind = like.dtype if tensor.is_floating_point() else tensor.dtype
    copied = tensor.detach().to(like.device, kind, copy=True)
    return nn.Parameter(copied, requires_grad=False) if isinstance(tensor, nn.Parameter) else copied


def remove_task(adapted: AdaptedBackbone, name: str) -> None:
    """Remove a task in place with all that served it alone."""
    adapted.check_tasks([name])
    if len(adapted.tasks) == 1:
        raise HyperparameterError(f"{name!r} is the last task; use eject() to get the backbone.")
    _forget(adapted, name)
    adapted.tasks = tuple(task for task in adapted.tasks if task != name)


def _forget(adapted: AdaptedBackbone, name: str) -> None:
    """Drop whatever serves the task ``name`` alone, as far as it is there."""
    for module in list(adapted.modules()):
        tasks = getattr(module, "tasks", None)
        if isinstance(tasks, TaskDict) and name in tasks:
            del tasks[name]
    if not adapted.method.one_path and name in adapted.paths:
        del adapted.paths[name]


def extract_task(adapted: AdaptedBackbone, name: str) -> AdaptedBackbone:
    """Copy what serves one task; of several paths, only its own."""
    adapted.check_tasks([name])
    view = _view(adapted)
    if not adapted.method.one_path:
        view._modules["paths"] = TaskDict({name: adapted.paths[name]})
    alone = _copy(view)
    for module in list(alone.modules()):
        tasks = getattr(module, "tasks", None)
        if isinstance(tasks, TaskDict):
            for other in [task for task in tasks if task != name]:
                del tasks[other]
    alone.tasks = (name,)
    return alone


def merge(adapted: AdaptedBackbone) -> AdaptedBackbone:
    """Copy the adapted backbone and let its method fold what it added into plain modules."""
    adapted.check_not_merged("merged again")
    merged = _copy(_view(adapted))
    for path in merged.paths.values():
        adapted.method.merge(path, adapted.info)
    merged.shared, merged.merged = None, True
    for _, parameter in merged.adapter_parameters():
        parameter.requires_grad_(False)
    return merged


def _view(adapted: AdaptedBackbone) -> AdaptedBackbone:
    """Give an object of its own whose submodules are those of ``adapted``."""
    view = copy.copy(adapted)
    view._modules = dict(adapted._modules)
    return view


def _copy(adapted: AdaptedBackbone) -> AdaptedBackbone:
    """Copy all but the frozen tensors and the original."""
    return clone(adapted, ownership.frozen_tensors(adapted).values())
