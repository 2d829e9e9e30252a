"""HRNet-V2's decoder, evaluated at each stage's own resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.errors import HyperparameterError
from peft_dense.heads.base import Head, register

__all__ = ["HRNetHead"]


@register
class HRNetHead(Head):
    """Upsample every stage to the finest, concatenate, mix all channels and classify.

    Sun et al., "High-Resolution Representations for Labeling Pixels and Regions",
    arXiv:1904.04514, section 3 (HRNetV2); the other decoder of VMT-Adapter's ablation (section
    5.4). With S the sum of the C_i::

        z   = relu(norm(mix(concat(x_0, upsample(x_1) ... upsample(x_n)))))  1x1, S to S, with bias
        out = classify(dropout(z))                                           1x1, S to out

    The stages keep their widths: on backbones wider than an HRNet, ``mix`` is large (2 M on
    Swin-T). As bilinear upsampling commutes with linear maps of the channels, ``mix`` is split by
    stage and applied before upsampling: the same function from the same parameters with, for
    Swin-T, an eighth of the multiplications. ``mix`` is therefore read, not called: hooks on it
    don't fire.

    Args:
        channels: Channels of each stage, finest first.
        out_channels: Channels of the map.
        dropout: Probability of dropping a channel before ``classify``.

    Shape:
        a list of ``(B, C_i, H_i, W_i)`` to ``(B, out_channels, H_0, W_0)``

    Raises:
        HyperparameterError: If a number of channels isn't positive, or ``dropout`` isn't a
            probability.
        ShapeError: If the features aren't those stages, finest first.

    Example:
        >>> import torch
        >>> head = HRNetHead((96, 192), out_channels=21)
        >>> head([torch.randn(2, 96, 8, 8), torch.randn(2, 192, 4, 4)]).shape
        torch.Size([2, 21, 8, 8])
    """

    name: ClassVar[str] = "hrnet"

    def __init__(self, channels: Sequence[int], out_channels: int, *, dropout: float = 0.0) -> None:
        super().__init__(channels, out_channels)
        if not 0 <= dropout < 1:
            raise HyperparameterError(
                f"dropout is {dropout}; pass a probability from 0 to below 1."
            )
        width = sum(self.channels)
        self.mix = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, out_channels, 1)
        self.reset_parameters()

    @staticmethod
    def count(channels: Sequence[int], out_channels: int) -> int:
        """Count the parameters: ``S^2 + 3 S + (S + 1) out``, S the sum of the channels.

        Example:
            >>> HRNetHead.count((96, 192, 384, 768), 21)
            2108181
        """
        width = sum(channels)
        return width**2 + 3 * width + (width + 1) * out_channels

    def reset_parameters(self) -> None:
        """Draw weights anew; small ones in ``classify``, so the first predictions are near zero."""
        nn.init.kaiming_normal_(self.mix.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classify.weight, std=0.01)
        for convolution in (self.mix, self.classify):
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        self.norm.reset_parameters()
        self.norm.reset_running_stats()

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Give the map at the size of the finest stage."""
        self.check(features)
        parts = self.mix.weight.split_with_sizes(self.channels, dim=1)
        mixed = F.conv2d(features[0], parts[0], self.mix.bias)
        for x, part in zip(features[1:], parts[1:], strict=True):
            coarse = F.conv2d(x, part)
            # in place, as ReLU: maps at the finest size are what costs memory and time here
            mixed += F.interpolate(coarse, mixed.shape[-2:], mode="bilinear", align_corners=False)
        out: Tensor = self.classify(self.dropout(F.relu(self.norm(mixed), inplace=True)))
        return out

    def extra_repr(self) -> str:
        """Show the channels."""
        return f"{self.channels}, out_channels={self.out_channels}"
