"""Convpass: a 3x3 convolution inside a narrow bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.layout import check_last_axis, join_map, split_map
from peft_dense.nn.checks import check_whole

__all__ = ["ConvpassAdapter"]


class ConvpassAdapter(nn.Module):
    """Residual branch that goes down, convolves over the map, and comes up.

    Computes ``scale * up(act(conv(act(down(x)))))`` with ``act(u) = u sigmoid(1.702 u)`` (Jie and
    Deng 2022, Convpass, section 3). Class and register tokens pass the convolution each as a map
    of one pixel, as there. ``up`` starts at zero, so the branch adds nothing at first; ``down`` and
    the convolution start as Xavier's uniform draws, biases at zero.

    Args:
        features: Width of the stream, C.
        width: Width of the bottleneck, h; ``2 h C + C + 2 h + 9 h^2`` parameters.
        scale: A constant factor.

    Shape:
        ``(B, P + H W, C) -> (B, P + H W, C)`` or ``(B, H, W, C) -> (B, H, W, C)``, with P class and
        register tokens first

    Raises:
        HyperparameterError: If the width isn't a whole number from 1 up.
        ShapeError: If the last axis of the input isn't C wide, or the map has another size.

    Example:
        >>> branch = ConvpassAdapter(96)
        >>> bool((branch(torch.randn(2, 1 + 7 * 5, 96), (7, 5)) == 0).all())
        True
    """

    def __init__(self, features: int, width: int = 8, *, scale: float = 1.0) -> None:
        super().__init__()
        check_whole("width", width)
        self.features, self.scale = features, scale
        self.down = nn.Linear(features, width)
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.up = nn.Linear(width, features)
        for layer in (self.down, self.conv):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(self.up.weight)
        for layer in (self.down, self.conv, self.up):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Go down, convolve over the map of ``grid = (height, width)``, come up, scale."""
        check_last_axis(x, self.features, "ConvpassAdapter")
        prefix, laid = split_map(_activate(self.down(x)), *grid)
        laid = self.conv(laid)
        if prefix is not None:
            # Around a map of one pixel is padding alone: only the kernel's centre counts.
            prefix = F.linear(prefix, self.conv.weight[:, :, 1, 1], self.conv.bias)
        y: Tensor = self.up(_activate(join_map(prefix, laid, flat=x.ndim == 3)))
        return y if self.scale == 1 else self.scale * y

    def extra_repr(self) -> str:
        """Show what isn't a submodule."""
        return f"scale={self.scale}"


def _activate(x: Tensor) -> Tensor:
    """Apply the quick approximation of GELU that Convpass uses."""
    return x * torch.sigmoid(1.702 * x)
