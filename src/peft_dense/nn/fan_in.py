"""A linear layer whose outputs move at the pace of one weight, however many inputs they sum.

Adam moves every weight by about the learning rate, so an output of an ordinary linear layer moves
by the rate times the *sum* of its inputs' sizes. Where that output is itself a weight, or turns
the embedding that makes weights, a rate that is right for a weight is then ``in`` times too large.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.nn._init import linear_variance, uniform_
from peft_dense.nn.checks import check_whole

__all__ = ["FanInLinear"]


class FanInLinear(nn.Module):
    """Map the last axis by ``gain / in * (W x + bias)``: the fan-in multiplier of muP.

    W is drawn ``in / gain`` times as large as an ordinary weight, so the layer starts as one; but
    a step of Adam moves an output by ``gain * lr`` times the *mean* size of its inputs, not their
    sum. The bias counts as one more input of size one. Yang, Hu et al. 2022 (Tensor Programs V)
    divide a matrix's rate by its fan-in under Adam; a multiplier of 1 / in before a weight that is
    drawn ``in`` times as large is the same, and needs no rates of its own.

    Weight decay that is added to the gradient (Adam's L2) outweighs the gradients of W, which are
    small as W is large: leave it off, or use AdamW.

    Args:
        in_features: Width of the input.
        out_features: Width of the output; ``in out`` parameters.
        bias: Add a bias, ``out`` more. It starts at zero.
        gain: A constant factor of how far a step moves an output. The start doesn't depend on it.
        variance: Of the entries of ``gain / in * W`` at the start; 1 / (3 in) by default, as in
            ``nn.Linear``.

    Shape:
        ``(..., in) -> (..., out)``

    Raises:
        HyperparameterError: If a width isn't a whole number from 1 up.

    Example:
        >>> layer, x = FanInLinear(64, 3), torch.randn(5, 64)
        >>> torch.allclose(layer(x), (x @ layer.weight.T + layer.bias) / 64, atol=1e-5)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
        variance: float | None = None,
    ) -> None:
        super().__init__()
        check_whole("in_features", in_features)
        check_whole("out_features", out_features)
        self.in_features, self.out_features, self.gain = in_features, out_features, gain
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.reset_parameters(linear_variance(in_features) if variance is None else variance)

    @property
    def multiplier(self) -> float:
        """The constant in front, ``gain / in``."""
        return self.gain / self.in_features

    def reset_parameters(self, variance: float) -> None:
        """Draw the weight anew, so that ``gain / in * W`` has that variance, and zero the bias."""
        uniform_(self.weight, variance / self.multiplier**2)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer."""
        bias = None if self.bias is None else self.bias * self.multiplier
        return F.linear(x * self.multiplier, self.weight, bias)

    def extra_repr(self) -> str:
        """Show the widths and the gain."""
        return f"{self.in_features}, {self.out_features}, gain={self.gain}"
