"""Where a path's tensor comes from: a mark on the module that holds it.

When the pattern of the paths is made, every parameter and buffer of the backbone gets an
:class:`Origin`, kept by the module that holds it. Copies and pickles carry it along, and wherever
a method moves the module (LoRA keeps a linear as its ``base``) it goes too. What has no origin was
added. So whose a tensor is depends neither on names nor on ``requires_grad``; and where a tensor is
replaced (``load_state_dict(assign=True)``, ``to_empty``), its place keeps its origin.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

__all__ = ["Origin", "fold", "is_path", "mark_origins", "origins_of", "still"]

_ORIGINS, _UPDATING = "_peft_dense_origins", "_peft_dense_updating"


class Origin(NamedTuple):
    """Which of the backbone's tensors stands here, and whether it is still the shared, frozen one.

    ``key`` is the tensor's (first) name in the backbone; ``frozen`` is False where the path has a
    copy of its own, which trains.
    """

    key: str
    frozen: bool = True


def mark_origins(pattern: nn.Module, updating: Iterable[str] = ()) -> None:
    """Give every parameter and buffer of ``pattern`` its origin.

    Args:
        pattern: The backbone's modules.
        updating: Names of the modules whose buffers a forward in train mode writes.
    """
    keys = {id(tensor): name for name, tensor in pattern.named_parameters()}
    keys |= {id(tensor): name for name, tensor in pattern.named_buffers()}
    writes = set(updating)
    for name, module in pattern.named_modules():
        slots = {**module._parameters, **module._buffers}
        origins = {leaf: Origin(keys[id(t)]) for leaf, t in slots.items() if t is not None}
        setattr(module, _ORIGINS, origins)
        if name in writes:
            setattr(module, _UPDATING, True)


def origins_of(module: nn.Module) -> dict[str, Origin]:
    """Give the origins of what ``module`` itself holds; empty for a module that was added."""
    origins: dict[str, Origin] = module.__dict__.get(_ORIGINS, {})
    return origins


def fold(module: nn.Module, leaf: str, value: Tensor) -> None:
    """Make ``value`` the frozen parameter ``leaf`` of ``module``, no longer the backbone's.

    For methods that merge what they added into the weights of a copy.

    Args:
        module: What holds the parameter.
        leaf: Its name there.
        value: What it becomes.

    Shape:
        Any; ``value`` has the shape that the module needs.

    Example:
        >>> import torch
        >>> linear = nn.Linear(2, 2)
        >>> fold(linear, "weight", torch.eye(2))
        >>> linear.weight.requires_grad, linear(torch.ones(1, 2)).shape
        (False, torch.Size([1, 2]))
    """
    setattr(module, leaf, nn.Parameter(value.detach(), requires_grad=False))
    origins_of(module).pop(leaf, None)


def still(module: nn.Module) -> bool:
    """Whether ``module`` must stay in eval mode: else it would write into frozen buffers."""
    if not module.__dict__.get(_UPDATING, False):
        return False
    origins = origins_of(module)
    return any(origins[leaf].frozen for leaf in module._buffers if leaf in origins)


def is_path(module: nn.Module) -> bool:
    """Whether ``module`` belongs to a path."""
    return _ORIGINS in module.__dict__
