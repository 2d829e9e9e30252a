"""Modules that nothing calls, and a model without them for a while."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from peft_dense.backbones.watch import Calls

__all__ = ["find_unused", "without"]


@contextmanager
def without(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Take modules out for a while."""
    parts = {name: model.get_submodule(name) for name in names}
    for name in names:
        model.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        for name, part in parts.items():
            model.set_submodule(name, part)


def find_unused(model: nn.Module, calls: Calls, used: set[str]) -> tuple[str, ...]:
    """Outermost modules that never ran and hold only unused parameters.

    Code may iterate over a container or index it, called or not, so its parts are named instead.
    """
    containers = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
    names: list[str] = []
    for name, module in model.named_modules():
        if not name or name in calls or any(name.startswith(n + ".") for n in names):
            continue
        inner = [f"{name}.{leaf}" for leaf, _ in module.named_parameters()]
        ran = any(other.startswith(name + ".") for other in calls)
        if inner and not (ran or used.intersection(inner) or isinstance(module, containers)):
            names.append(name)
    return tuple(names)
