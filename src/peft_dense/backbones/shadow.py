"""A shadow of a model: its modules on torch's ``meta`` device, where tensors have no values.

The probe runs, edits and differentiates the shadow; the model itself takes no part.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from peft_dense.backbones.clone import empty_containers
from peft_dense.errors import UnsupportedModelError

__all__ = ["shadow"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OWN = ("torch", "timm", "torchvision", "transformers", "segmentation_models_pytorch")
"""Packages whose hooks are part of how a model computes: weight norms, timm's feature hooks."""


def shadow(model: nn.Module, *, users_hooks: bool = False) -> nn.Module:
    """Copy ``model`` to the ``meta`` device, in eval mode, every parameter trainable.

    Args:
        model: Any module, on any device.
        users_hooks: Keep the hooks that users registered. Without them a probing forward writes
            nothing into their lists and loggers.

    Raises:
        UnsupportedModelError: The model can't be deep-copied.
    """
    memo = empty_containers(model)
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta", requires_grad=False)
        # Integer parameters (packed weights) can't ask for gradients.
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.is_floating_point())
    for tensor in _tensors(model):
        memo.setdefault(id(tensor), torch.empty_like(tensor, device="meta", requires_grad=False))
    if not users_hooks:
        memo.update({id(hook): _silent for _, hook in _hooks(model) if not _owns(hook)})
    try:
        clone: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise UnsupportedModelError(
            f"{type(model).__name__} can't be deep-copied ({error}), and inject works on copies. "
            "Take out what can't be copied (open files, locks, lambdas that hold tensors), "
            "or build the model anew."
        ) from error
    for hooks, hook in list(_hooks(clone)):
        if hook is _silent:
            for key in [key for key, value in hooks.items() if value is _silent]:
                del hooks[key]
    return clone.eval()


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    """Yield buffers, and tensors that modules keep as plain attributes or in plain containers."""
    yield from model.buffers()
    for module in model.modules():
        for value in vars(module).values():
            inner = value.values() if isinstance(value, dict) else value
            for item in inner if isinstance(value, (dict, list, tuple)) else (value,):
                if isinstance(item, Tensor) and not isinstance(item, nn.Parameter):
                    yield item


def _hooks(model: nn.Module) -> Iterator[tuple[dict[int, Any], Any]]:
    for module in model.modules():
        for name in _HOOKS:
            hooks = getattr(module, name)
            for hook in list(hooks.values()):
                yield hooks, hook


def _owns(hook: Any) -> bool:
    """Whether a hook comes from a package that builds models."""
    while hasattr(hook, "func"):  # functools.partial
        hook = hook.func
    home = getattr(hook, "__module__", None) or type(hook).__module__
    return home.partition(".")[0] in _OWN


def _silent(*_: Any) -> None:
    """Stand in for a user's hook while its module is copied."""
