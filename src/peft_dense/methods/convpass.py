"""Convpass: 3x3 convolutions beside MLPs and attention, shared by all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from peft_dense.backbones import BackboneInfo, Site
from peft_dense.methods.base import register
from peft_dense.methods.on_maps import MapAdapter
from peft_dense.nn import ConvpassAdapter

__all__ = ["Convpass"]


@register
@dataclass(frozen=True, kw_only=True)
class Convpass(MapAdapter):
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

    width: int = 8
    scale: float = 1.0

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 h d + d + 2 h + 9 h^2)`` with the bottleneck's width h."""
        return super().count(info, tasks)

    def _branch(self, site: Site) -> nn.Module:
        return ConvpassAdapter(site.width, self.width, scale=self.scale)

    def _size(self, d: int) -> int:
        h = self.width
        return 2 * h * d + d + 2 * h + 9 * h * h
