"""When a layer may be run by faster code of this library's own: only where nothing would notice."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

__all__ = ["in_full_precision", "is_bare", "runs_eagerly"]


def runs_eagerly() -> bool:
    """Whether operations just run: not compiled or traced, without forward-mode AD or transforms.

    Compilers fuse the plain layers themselves, and export them for inputs of any length. Autograd
    functions of our own have no forward-mode derivative, and can't be transformed where they write
    in place.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and forward_ad._current_level < 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def is_bare(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is of just that class and without hooks: one that has more may do more.

    Args:
        module: The module.
        kind: Its class; subclasses don't count.
    """
    return type(module) is kind and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def in_full_precision(x: Tensor) -> bool:
    """Whether an input is of single or double precision, and autocast leaves it so.

    Args:
        x: The input.
    """
    return (
        x.dtype in (torch.float32, torch.float64)
        and not x.is_meta  # has no autocast to ask
        and not torch.is_autocast_enabled(x.device.type)
    )
