"""A LayerNorm and the linear behind it, which keep one map for the backward where two are usual.

The LayerNorm keeps its input, the linear its own, the output of the LayerNorm. But from the
normalised map alone both gradients follow, once the LayerNorm's scales and shifts have moved into
the linear.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.nn.eager import in_full_precision, is_bare, runs_eagerly

__all__ = ["norm_then_linear"]


def norm_then_linear(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> Tensor:
    """Give ``linear(norm(x))``.

    Args:
        x: The input.
        norm: A LayerNorm over the last axis.
        linear: What reads its output.

    Shape:
        ``(..., in) -> (..., out)``

    Example:
        >>> x, norm, linear = torch.randn(2, 49, 8), nn.LayerNorm(8), nn.Linear(8, 3)
        >>> torch.allclose(norm_then_linear(x, norm, linear), linear(norm(x)), atol=1e-5)
        True
    """
    if not _can_fuse(x, norm, linear):
        out: Tensor = linear(norm(x))
        return out
    normalised: Tensor
    normalised, _ = _Normalise.apply(x, norm.eps)
    shift = linear.weight @ norm.bias
    bias = shift if linear.bias is None else shift + linear.bias
    return F.linear(normalised, linear.weight * norm.weight, bias)


def _can_fuse(x: Tensor, norm: nn.LayerNorm, linear: nn.Linear) -> bool:
    return (
        torch.is_grad_enabled()  # else nothing is kept anyway
        and runs_eagerly()
        and is_bare(norm, nn.LayerNorm)
        and is_bare(linear, nn.Linear)
        and norm.normalized_shape == x.shape[-1:]
        and norm.weight is not None
        and norm.bias is not None
        # In half precision, and under autocast, the layers round elsewhere.
        and in_full_precision(x)
    )


class _Normalise(torch.autograd.Function):
    """Normalise the last axis, without scales and shifts; keep the output, not the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Give what is normalised, and by what it was multiplied."""
        ctx.set_materialize_grads(False)
        y, _, by = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(y, by)
        return y, by

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Take the normalised map for the input of the gradient's formula, and scale the result."""
        y, by = ctx.saved_tensors
        of_y, of_by = grads
        if of_y is not None and of_by is None and not torch.is_grad_enabled():
            axes, wants = y.shape[-1:], [True, False, False]
            found, _, _ = torch.ops.aten.native_layer_norm_backward(
                of_y, y, axes, torch.zeros_like(by), torch.ones_like(by), None, None, wants
            )
            return found.mul_(by), None
        # Step by step, so that gradients of gradients follow.
        total = None
        if of_y is not None:
            along = y * (of_y * y).mean(-1, keepdim=True)
            total = by * (of_y - of_y.mean(-1, keepdim=True) - along)
        if of_by is not None:
            part = -of_by * by.square() * y / y.shape[-1]
            total = part if total is None else total + part
        return total, None
