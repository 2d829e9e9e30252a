"""Mona: depthwise filters of three sizes inside a bottleneck."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.layout import check_last_axis, join_map, split_map
from peft_dense.nn.checks import check_whole

__all__ = ["MonaAdapter"]

KERNELS = (3, 5, 7)


class MonaAdapter(nn.Module):
    """Residual branch that filters the map in a bottleneck, at three sizes at once.

    Yin et al. 2025, Mona, section 3::

        u = norm_scale * norm(x) + input_scale * x
        v = down(u)
        v = v + (conv3(v) + conv5(v) + conv7(v)) / 3      depthwise
        v = v + mix(v)                                    1x1
        result = up(gelu(v))

    Class and register tokens have no place on the map: the branch adds nothing to them (the
    original's backbones have none). ``up`` starts at zero, so the branch adds nothing at first; the
    original draws it near zero. ``norm_scale`` starts at 1e-6 and ``input_scale`` at one, as there.

    Args:
        features: Width of the stream, C.
        width: Width of the bottleneck, n; ``2 n C + 5 C + n^2 + 88 n`` parameters, ``133 C + 9728``
            at 64.

    Shape:
        ``(B, P + H W, C) -> (B, P + H W, C)`` or ``(B, H, W, C) -> (B, H, W, C)``, with P class and
        register tokens first

    Raises:
        HyperparameterError: If the width isn't a whole number from 1 up.
        ShapeError: If the last axis of the input isn't C wide, or the map has another size.

    Example:
        >>> branch = MonaAdapter(96)
        >>> bool((branch(torch.randn(2, 7 * 5, 96), (7, 5)) == 0).all())
        True
    """

    def __init__(self, features: int, width: int = 64) -> None:
        super().__init__()
        check_whole("width", width)
        self.features = features
        self.norm = nn.LayerNorm(features)
        self.norm_scale = nn.Parameter(torch.full((features,), 1e-6))
        self.input_scale = nn.Parameter(torch.ones(features))
        self.down = nn.Linear(features, width)
        self.filters = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for size in KERNELS
        )
        self.mix = nn.Conv2d(width, width, 1)
        self.up = nn.Linear(width, features)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for tensor in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Go down, filter the map of ``grid = (height, width)``, come up."""
        check_last_axis(x, self.features, "MonaAdapter")
        u = self.norm_scale * self.norm(x) + self.input_scale * x
        prefix, laid = split_map(self.down(u), *grid)
        filtered = [convolve(laid) for convolve in self.filters]
        laid = laid + sum(filtered[1:], filtered[0]) / len(filtered)
        laid = laid + self.mix(laid)
        y: Tensor = self.up(F.gelu(join_map(None, laid, flat=x.ndim == 3)))
        return y if prefix is None else F.pad(y, (0, 0, prefix.shape[1], 0))
