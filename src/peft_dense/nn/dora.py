"""A linear whose weight is split into magnitude and direction."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.layout import from_channels_last, to_channels_last
from peft_dense.nn.low_rank_products import ScaledLowRankProduct
from peft_dense.nn.lowrank import LowRankLinear
from peft_dense.nn.remembered import Remembered, can_remember

__all__ = ["DoRALinear"]


class DoRALinear(LowRankLinear):
    """Turn a linear's weight by a low-rank update and give every row a magnitude of its own.

    Liu et al. 2024 (DoRA), equation 5: ``W' = m * (W + s B A) / |W + s B A|`` with one norm per row
    of the ``(out, in)`` weight, ``s = alpha / rank``, and m starting at the rows' norms, so the
    layer starts as ``base``. As there (section 4.3) no gradient goes through the norm.

    In eval and without gradients, on the CPU and in single or double precision, a call keeps ``W'``
    for the next one, which takes as much memory as ``base``; an eager call of another kind frees
    it. It is made anew when a factor, the magnitude, ``alpha`` or ``base`` changed, in whatever way
    (but see ``Remembered`` in ``peft_dense/nn/remembered.py`` for what ``.data`` can hide), and for
    every read of ``.weight``.

    Args:
        base: The linear, or a 1 x 1 convolution; kept by reference.
        rank: Width of the update; ``rank (in + out) + out`` parameters.
        alpha: Weight of the update, divided by ``rank``.
        norm: LayerNorm on the update's input, as for `LowRankLinear`.

    Shape:
        Those of ``base``.

    Raises:
        UnsupportedModelError: If ``base`` is another layer.
        HyperparameterError: If the rank isn't from 1 to the smaller width, or alpha isn't above 0.

    Example:
        >>> base, x = nn.Linear(96, 288), torch.randn(2, 49, 96)
        >>> torch.allclose(DoRALinear(base, rank=4)(x), base(x), atol=1e-5)
        True
    """

    def __init__(
        self, base: nn.Linear | nn.Conv2d, rank: int, *, alpha: float = 16.0, norm: bool = False
    ) -> None:
        super().__init__(base, rank, alpha=alpha, norm=norm)
        self.magnitude = nn.Parameter(_row_norms(super().merged_weight()).detach().clone())
        self._remembered = Remembered()

    def merged_weight(self) -> Tensor:
        """Give ``W'`` in the shape of ``base.weight``."""
        weight = super().merged_weight()
        scale = self.magnitude / _row_norms(weight).detach()
        return (weight.flatten(1) * scale[:, None]).view_as(weight)

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``W'`` and the bias of ``base``."""
        if torch.compiler.is_compiling():  # what is kept would be a side effect of the graph
            return self.forward_plain(x)
        can_fuse = self._can_fuse(x)
        if can_fuse:
            frozen, small = self.base.weight, (self.down, self.up, self.magnitude)
            if can_remember(self, x, (frozen, *small)):
                scale = self.alpha / self.rank
                weight = self._remembered.get(self.merged_weight, frozen, small, scale)
                return F.linear(x, weight, self.bias)
        self._remembered.forget()
        if not (can_fuse and self._pays(x)):
            return self.forward_plain(x)
        up = self.alpha / self.rank * self.up
        y: Tensor
        y, _ = ScaledLowRankProduct.apply(
            x, self.base.weight, self.bias, self.down, up, self.magnitude
        )
        return y

    def forward_plain(self, x: Tensor) -> Tensor:
        """Do the same by the layers one after the other: what ``forward`` is compared with."""
        bias = self.base.bias
        moved = to_channels_last(super().forward_plain(x), self.channel_axis)
        moved = moved if bias is None else moved - bias
        moved = moved * (self.magnitude / _row_norms(super().merged_weight()).detach())
        return from_channels_last(moved if bias is None else moved + bias, self.channel_axis)


def _row_norms(weight: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1)
    return norms
