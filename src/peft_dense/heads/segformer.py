"""SegFormer's all-MLP decoder, evaluated at each stage's own resolution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, cast

from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.errors import HyperparameterError
from peft_dense.heads.base import Head, register
from peft_dense.nn.checks import check_whole

__all__ = ["SegFormerHead"]


@register
class SegFormerHead(Head):
    """Project every stage to one width, upsample to the finest, fuse and classify.

    Xie et al., "SegFormer: Simple and Efficient Design for Semantic Segmentation with
    Transformers", NeurIPS 2021, section 3.2, equation 4::

        y_i = upsample(project_i(x_i))              one linear per stage, bilinear upsampling
        z   = relu(norm(fuse(concat(y_0 ... y_n)))) a 1x1 convolution without bias, BatchNorm
        out = classify(dropout(z))                  a 1x1 convolution

    Stages are concatenated finest first. As bilinear upsampling commutes with linear maps of the
    channels, ``fuse`` is split by stage, multiplied into ``project_i``, and applied before
    upsampling: the same function from the same parameters, with one matrix product per stage at the
    stage's own resolution. ``project`` and ``fuse`` are therefore read, not called: hooks on them
    don't fire.

    Args:
        channels: Channels of each stage, finest first.
        out_channels: Channels of the map.
        width: Common width of the projected stages.
        dropout: Probability of dropping a channel before ``classify``.

    Shape:
        a list of ``(B, C_i, H_i, W_i)`` to ``(B, out_channels, H_0, W_0)``

    Raises:
        HyperparameterError: If a number of channels isn't positive, or ``dropout`` isn't a
            probability.
        ShapeError: If the features aren't those stages, finest first.

    Example:
        >>> import torch
        >>> head = SegFormerHead((96, 192), out_channels=21)
        >>> head([torch.randn(2, 96, 8, 8), torch.randn(2, 192, 4, 4)]).shape
        torch.Size([2, 21, 8, 8])
    """

    name: ClassVar[str] = "segformer"

    def __init__(
        self,
        channels: Sequence[int],
        out_channels: int,
        *,
        width: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, out_channels)
        check_whole("width", width)
        if not 0 <= dropout < 1:
            raise HyperparameterError(
                f"dropout is {dropout}; pass a probability from 0 to below 1."
            )
        self.width = width
        self.project = nn.ModuleList(nn.Linear(features, width) for features in self.channels)
        self.fuse = nn.Conv2d(width * len(self.channels), width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(width, out_channels, 1)
        self.reset_parameters()

    @staticmethod
    def count(channels: Sequence[int], out_channels: int, width: int = 256) -> int:
        """Count the parameters: ``sum (C_i + 1) w + n w^2 + 2 w + (w + 1) out``, n stages.

        Example:
            >>> sum(SegFormerHead.count((96, 192, 384, 768), out) for out in (21, 7, 1, 3))
            2537504
        """
        projections = sum((features + 1) * width for features in channels)
        return projections + len(channels) * width**2 + 2 * width + (width + 1) * out_channels

    def reset_parameters(self) -> None:
        """Draw weights anew; small ones in ``classify``, so the first predictions are near zero."""
        for project in self._projections():
            nn.init.trunc_normal_(project.weight, std=0.02)
            nn.init.zeros_(project.bias)
        nn.init.kaiming_normal_(self.fuse.weight, mode="fan_out", nonlinearity="relu")
        self.norm.reset_parameters()
        self.norm.reset_running_stats()
        nn.init.normal_(self.classify.weight, std=0.01)
        assert self.classify.bias is not None
        nn.init.zeros_(self.classify.bias)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Give the map at the size of the finest stage."""
        self.check(features)
        size = features[0].shape[-2:]
        parts = self.fuse.weight.flatten(1).chunk(len(features), dim=1)
        stages = (
            _upsample(_project_and_fuse(x, project, part), size)
            for x, project, part in zip(features, self._projections(), parts, strict=True)
        )
        # in place, as ReLU: maps at the finest size are what costs memory and time here
        fused = next(stages)
        for stage in stages:
            fused += stage
        out: Tensor = self.classify(self.dropout(F.relu(self.norm(fused), inplace=True)))
        return out

    def _projections(self) -> Iterable[nn.Linear]:
        return cast(Iterable[nn.Linear], self.project)

    def extra_repr(self) -> str:
        """Show the channels."""
        return f"{self.channels}, out_channels={self.out_channels}, width={self.width}"


def _project_and_fuse(x: Tensor, project: nn.Linear, part: Tensor) -> Tensor:
    """Apply ``part @ project(x)`` as one matrix: ``(B, C, H, W) -> (B, w, H, W)``."""
    weight, bias = part @ project.weight, part @ project.bias
    return F.conv2d(x, weight[..., None, None], bias)


def _upsample(x: Tensor, size: Sequence[int]) -> Tensor:
    """Resample bilinearly to ``size``, unless ``x`` has it."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, list(size), mode="bilinear", align_corners=False)
