"""Scaling kernels: from the templates of one width to the weights of a layer s times as wide.

Kernels start normal with variance 1 / s. An entry of the result is a sum of s products of a
template's entry and a kernel's, so it has the templates' variance, and moves as far as they move,
whatever s is. With the variance 1 / s^2 that would keep nn.Linear's start in a layer with s times
the inputs, it would move 1 / sqrt(s) as far.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peft_dense.errors import ShapeError
from peft_dense.nn.checks import check_whole
from peft_dense.nn.kronecker import kronecker_sum

__all__ = ["LayerwiseScalingKernel", "VectorScalingKernel"]


class LayerwiseScalingKernel(nn.Module):
    """Widen s template matrices into one: ``sum_i kron(template_i, kernel_i)``.

    Polyhistor, section 4.2, equation 4, and section 4.3, equation 6. At scale 1 the one template
    is the result and there are no parameters.

    Args:
        scale: Width of the layer over that of the templates, s; ``s^3`` parameters for s > 1.

    Shape:
        ``(s, a, b) -> (a s, b s)``

    Raises:
        HyperparameterError: If the scale isn't a whole number from 1 up.
        ShapeError: If the input isn't s matrices.

    Example:
        >>> LayerwiseScalingKernel(2)(torch.randn(2, 96, 48)).shape
        torch.Size([192, 96])
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        check_whole("scale", scale)
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(scale, scale, scale)) if scale > 1 else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernels anew."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=self.scale**-0.5)

    def forward(self, templates: Tensor) -> Tensor:
        """Sum the Kronecker products of templates and kernels."""
        _check_templates(templates, self.scale, "LayerwiseScalingKernel", "a, b")
        return templates[0] if self.weight is None else kronecker_sum(templates, self.weight)

    def extra_repr(self) -> str:
        """Show the scale."""
        return f"{self.scale}"


class VectorScalingKernel(nn.Module):
    """Widen s template vectors into one: ``sum_i kron(template_i, kernel_i)``.

    Equation 6 of Polyhistor for the biases and norms of an adapter, with kernels of length s. At
    scale 1 the one template is the result and there are no parameters.

    Args:
        scale: Width of the layer over that of the templates, s; ``s^2`` parameters for s > 1.

    Shape:
        ``(s, a) -> (a s,)``

    Raises:
        HyperparameterError: If the scale isn't a whole number from 1 up.
        ShapeError: If the input isn't s vectors.

    Example:
        >>> VectorScalingKernel(4)(torch.randn(4, 96)).shape
        torch.Size([384])
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        check_whole("scale", scale)
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(scale, scale)) if scale > 1 else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernels anew."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=self.scale**-0.5)

    def forward(self, templates: Tensor) -> Tensor:
        """Sum the Kronecker products of templates and kernels."""
        _check_templates(templates, self.scale, "VectorScalingKernel", "a")
        return templates[0] if self.weight is None else (templates.mT @ self.weight).flatten()

    def extra_repr(self) -> str:
        """Show the scale."""
        return f"{self.scale}"


def _check_templates(templates: Tensor, scale: int, layer: str, axes: str) -> None:
    if templates.ndim != 1 + len(axes.split(", ")) or templates.shape[0] != scale:
        raise ShapeError(
            f"{layer}({scale}) takes {scale} templates, ({scale}, {axes}); got a tensor of shape "
            f"{tuple(templates.shape)}. Pass one template for each unit of the scale."
        )
