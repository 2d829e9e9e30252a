"""Whom every parameter and buffer belongs to: the frozen backbone, a path, all tasks, or one.

The state dicts, the ledger, the optimiser's groups, train mode, moving and casting, and saving ask
here. A place of the backbone has an origin
(:mod:`peft_dense.backbones.origin`); what has none was added by a method, for the task under whose
name it lies (in a :class:`~peft_dense.nn.TaskDict`, or on that task's path) or for all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from peft_dense.backbones.origin import Origin, origins_of, still
from peft_dense.nn import TaskDict

__all__ = [
    "Slot",
    "drop_copies",
    "fill_copies",
    "freeze_statistics",
    "frozen_tensors",
    "is_plain",
    "retie",
    "settle",
    "slots",
]


class Slot(NamedTuple):
    """A place that holds a parameter or a buffer, and whose it is.

    ``name`` is its full name; ``module`` and ``leaf`` are where it lies; ``origin`` is None for
    what was added; ``task`` is the one task it serves, or None.
    """

    name: str
    module: nn.Module
    leaf: str
    tensor: Tensor
    origin: Origin | None
    task: str | None

    @property
    def frozen(self) -> bool:
        """Whether it is the frozen backbone's, which all paths share."""
        return self.origin is not None and self.origin.frozen

    @property
    def kind(self) -> Literal["frozen", "unfrozen_backbone", "per_task", "shared"]:
        """What the ledger calls it."""
        if self.origin is not None:
            return "frozen" if self.origin.frozen else "unfrozen_backbone"
        return "shared" if self.task is None else "per_task"

    @property
    def persistent(self) -> bool:
        """Whether state dicts name it."""
        return self.leaf not in self.module._non_persistent_buffers_set

    def put(self, tensor: Tensor) -> None:
        """Let the place hold ``tensor``."""
        if isinstance(tensor, nn.Parameter):
            self.module._parameters[self.leaf] = tensor
        else:
            self.module._buffers[self.leaf] = tensor


def slots(root: nn.Module) -> Iterator[Slot]:
    """Yield every place that holds a tensor: a tensor held in several places comes several times.

    Args:
        root: The adapted backbone; a task's path lies in its ``paths`` under the task's name.
    """
    for name, module, task in _walk(root, "", None):
        origins = origins_of(module)
        for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield Slot(f"{name}{leaf}", module, leaf, tensor, origins.get(leaf), task)


def _walk(
    module: nn.Module, prefix: str, task: str | None
) -> Iterator[tuple[str, nn.Module, str | None]]:
    yield prefix, module, task
    by_task = isinstance(module, TaskDict)
    owners = dict(zip(module._modules, module.keys(), strict=True)) if by_task else {}  # type: ignore[operator]
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{prefix}{name}.", owners.get(name, task))


def frozen_tensors(root: nn.Module) -> dict[str, Tensor]:
    """Give the frozen backbone's tensors by their name in the backbone."""
    found: dict[str, Tensor] = {}
    for slot in slots(root):
        if slot.frozen:
            assert slot.origin is not None
            found.setdefault(slot.origin.key, slot.tensor)
    return found


def retie(root: nn.Module) -> None:
    """Let all places of one origin hold one tensor again, after they were replaced one by one."""
    first: dict[tuple[str, str], Tensor] = {}
    for slot in slots(root):
        if slot.origin is not None:
            # A path's own copies are tied within the path, the frozen ones everywhere.
            where = "" if slot.origin.frozen else ".".join(slot.name.split(".")[:2])
            one = first.setdefault((where, slot.origin.key), slot.tensor)
            if one is not slot.tensor:
                slot.put(one)


def settle(root: nn.Module, like: Tensor, known: set[int] | frozenset[int] = frozenset()) -> None:
    """Bring what was added to the device and floating-point type of ``like``.

    Args:
        root: The adapted backbone.
        like: A tensor of the backbone, or of the adapters that are there.
        known: Ids of the tensors that stay as they are.
    """
    for slot in slots(root):
        old = slot.tensor
        if slot.origin is not None or id(old) in known:
            continue
        kind = like.dtype if old.is_floating_point() else old.dtype
        if (old.device, old.dtype) == (like.device, kind):
            continue
        if isinstance(old, nn.Parameter) and not like.is_meta:
            old.data = old.data.to(like.device, kind)
        elif isinstance(old, nn.Parameter):
            data = torch.empty_like(old, device="meta", dtype=kind)
            slot.put(nn.Parameter(data, requires_grad=old.requires_grad))
        else:
            slot.put(old.to(like.device, kind))


def freeze_statistics(root: nn.Module) -> None:
    """Put what would write into frozen buffers (batch normalisation) in eval mode."""
    for module in root.modules():
        if still(module):
            module.training = False


def drop_copies(module: Any, state: dict[str, Any], prefix: str, _: dict[str, Any]) -> None:
    """Let a state dict name each frozen tensor once, at its first place (a state-dict hook)."""
    seen: set[str] = set()
    for slot in slots(module):
        if slot.frozen and slot.persistent:
            assert slot.origin is not None
            if slot.origin.key in seen:
                state.pop(prefix + slot.name, None)
            seen.add(slot.origin.key)


def fill_copies(module: Any, state: dict[str, Any], prefix: str) -> bool:
    """Give a state dict that is to be loaded all places of each frozen tensor it names.

    Where it brings other frozen values than those that are there, the frozen tensors leave the
    storage that they share with the original.

    Returns:
        Whether it brings other frozen values.
    """
    frozen = [(slot, slot.origin.key) for slot in slots(module) if slot.frozen and slot.origin]
    given: dict[str, Tensor] = {}
    for slot, key in frozen:
        if prefix + slot.name in state:
            given.setdefault(key, state[prefix + slot.name])
    held = {key: slot.tensor for slot, key in frozen}
    for slot, key in frozen:
        if key in given and slot.persistent:
            state.setdefault(prefix + slot.name, given[key])
    if not any(_differs(held[key], new) for key, new in given.items()):
        return False
    for tensor in held.values():
        if isinstance(tensor, nn.Parameter):
            tensor.data = tensor.data.clone()
    return True


def _differs(held: Tensor, new: Tensor) -> bool:
    if held.shape != new.shape or not is_plain(held) or not is_plain(new):
        return held.is_meta != new.is_meta
    return not torch.equal(new.to(held), held)


def is_plain(tensor: Tensor) -> bool:
    """Whether the values lie in this process: neither on ``meta`` nor sharded over processes."""
    return type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
