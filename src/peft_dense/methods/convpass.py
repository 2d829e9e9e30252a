"""Convpass: 3x3 convolutions beside MLPs and attention, shared by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from peft_dense.backbones import BackboneInfo
from peft_dense.methods.base import (
    Method,
    attach,
    check_adapter,
    check_maps,
    map_sites,
    register,
)
from peft_dense.nn import ConvpassAdapter
from peft_dense.nn.checks import check_whole

__all__ = ["Convpass"]


@register
@dataclass(frozen=True, kw_only=True)
class Convpass(Method):
    """Adds ``scale * up(act(conv3x3(act(down(x)))))`` beside every MLP, in one pass.

    Jie and Deng 2022. A single-task method of plain ViTs; here all tasks share it. The original
    stands beside attention too (``sites="both"``). That needs attention that is handed the whole
    map, as in ViT, PVTv2 and torchvision's Swin; timm's Swin hands it windows, so the default is
    the MLPs alone. The original reads the stream after the block's LayerNorm, as a branch beside a
    pre-norm block's MLP does; its dropout of 0.1 and its drop path are left out, and its
    convolution may also start as the identity.

    Args:
        width: Width of the bottleneck.
        sites: ``"mlp"``, ``"attn"`` or ``"both"``. Sites whose tokens are no map (windows, mask
            units) get nothing; a warning names them.
        placement: ``"parallel"`` reads the site's input, ``"serial"`` its output.
        scale: Constant factor of the branch; the original tunes it per data set, from 0.01 to 100.

    Raises:
        NoSiteError: No such site works on a map.
        HyperparameterError: A parallel branch has no place.
    """

    name: ClassVar[str] = "convpass"
    paper: ClassVar[str] = "Jie and Deng 2022 (Convpass), arXiv 2207.07039, section 3"
    one_path: ClassVar[bool] = True

    width: int = 8
    sites: Literal["mlp", "attn", "both"] = "mlp"
    placement: Literal["parallel", "serial"] = "parallel"
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_whole("width", self.width)
        check_adapter(None, self.sites, self.placement)

    def resolve(self, info: BackboneInfo) -> Convpass:
        """Check that there are maps to convolve over."""
        check_maps(self.name, info, self.sites)
        return self

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a convolutional bottleneck at every site."""
        for site in map_sites(info, self.sites):
            branch = ConvpassAdapter(site.width, self.width, scale=self.scale)
            attach(path, site, branch, self.placement, grid=True)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 h d + d + 2 h + 9 h^2)`` with the bottleneck's width h."""
        h = self.width
        sites = map_sites(info, self.sites)
        return sum(2 * h * site.width + site.width + 2 * h + 9 * h * h for site in sites)
