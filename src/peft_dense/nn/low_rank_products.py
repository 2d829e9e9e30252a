"""Products with a weight and its low-rank update, whose gradients are formed low-rank too.

Autograd through ``x @ (W + up @ down)`` would form the gradient of the whole weight, as large a
product as the forward; a branch beside the frozen product costs passes over its output and its
input's gradient. Here one product uses the updated weight, and each factor's gradient comes from
two thin products. The updated weight is formed again in the backward: that is cheaper than to keep
one more backbone. What is saved are inputs only, or recomputed where gradients of gradients are
wanted, so autograd can go through the backward too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["LowRankProduct", "ScaledLowRankProduct"]


class LowRankProduct(torch.autograd.Function):
    """Give ``x @ (weight + up @ down).T + bias``."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
        """Use the updated weight once."""
        return F.linear(x, torch.addmm(weight, up, down), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep inputs only."""
        x, weight, _, down, up = inputs
        ctx.save_for_backward(x, weight, down, up)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Form the factors' gradients from thin products."""
        x, weight, down, up = ctx.saved_tensors
        rows, grad = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, weight.shape[0])
        wants = ctx.needs_input_grad
        return (
            (grad @ torch.addmm(weight, up, down)).reshape(x.shape) if wants[0] else None,
            grad.mT @ rows if wants[1] else None,
            grad.sum(0) if wants[2] else None,
            (grad @ up).mT @ rows if wants[3] else None,
            grad.mT @ (rows @ down.mT) if wants[4] else None,
        )


class ScaledLowRankProduct(torch.autograd.Function):
    """Give ``m / |V| * x @ V.T + bias`` for ``V = weight + up @ down``, and ``x @ V.T``.

    ``|V|`` holds the norms of the rows, through which no gradient goes. The second output is kept
    for the gradient of ``m`` and carries none itself.
    """

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        magnitude: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Scale the output, not the weight: one pass over it, and it is needed unscaled."""
        turned = torch.addmm(weight, up, down)
        product = F.linear(x, turned)
        scale = magnitude / _row_norms(turned)
        scaled = product * scale if bias is None else torch.addcmul(bias, product, scale)
        return scaled, product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep inputs and the unscaled product."""
        x, weight, _, down, up, magnitude = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, weight, down, up, magnitude, output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Form the factors' gradients from thin products."""
        x, weight, down, up, magnitude, product = ctx.saved_tensors
        rows, grad = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, weight.shape[0])
        wants = ctx.needs_input_grad
        turned = torch.addmm(weight, up, down)
        norms = _row_norms(turned)
        scale = (magnitude / norms)[:, None]
        # What was kept has no graph; gradients of gradients need one.
        product = F.linear(rows, turned) if torch.is_grad_enabled() else product.reshape(grad.shape)
        return (
            (grad @ (turned * scale)).reshape(x.shape) if wants[0] else None,
            scale * (grad.mT @ rows) if wants[1] else None,
            grad.sum(0) if wants[2] else None,
            (grad @ (up * scale)).mT @ rows if wants[3] else None,
            scale * (grad.mT @ (rows @ down.mT)) if wants[4] else None,
            (grad * product).sum(0) / norms if wants[5] else None,
        )


def _row_norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.detach(), dim=1)
    return norms
