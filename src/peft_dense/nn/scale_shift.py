"""A scale and a shift for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peft_dense.layout import check_last_axis

__all__ = ["ScaleShift"]


class ScaleShift(nn.Module):
    """Scale and shift every channel: ``x * scale + shift`` on the last axis.

    The task-specific half of VMT-Adapter (section 4.1, equation 4: alpha and beta). Starts as the
    identity: scales at one, shifts at zero.

    Args:
        features: Number of channels, C; ``2 C`` parameters.

    Shape:
        ``(..., C) -> (..., C)``

    Raises:
        ShapeError: If the last axis of the input isn't C wide.

    Example:
        >>> x = torch.randn(2, 49, 96)
        >>> torch.equal(ScaleShift(96)(x), x)
        True
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.scale = nn.Parameter(torch.empty(features))
        self.shift = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the layer the identity."""
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.shift)

    def forward(self, x: Tensor) -> Tensor:
        """Give ``x * scale + shift``."""
        check_last_axis(x, self.features, "ScaleShift")
        return torch.addcmul(self.shift, x, self.scale)  # one pass over x, not two

    def extra_repr(self) -> str:
        """Show the width."""
        return f"{self.features}"
