"""Mona: multi-scale depthwise filters after MLPs and attention, shared by all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from peft_dense.backbones import BackboneInfo, Site
from peft_dense.methods.base import register
from peft_dense.methods.on_maps import MapAdapter
from peft_dense.nn import MonaAdapter

__all__ = ["Mona"]


@register
@dataclass(frozen=True, kw_only=True)
class Mona(MapAdapter):
    """Adds a bottleneck with 3x3, 5x5 and 7x7 depthwise filters after every MLP, in one pass.

    Yin et al. 2025. A single-task method of Swin; here all tasks share it. The original reads the
    residual stream itself, once after the attention's sum and once after the MLP's. That place has
    no module in most backbones, so this one stands inside the residual branch: it reads the output
    of the MLP (with ``sites="both"`` also of the attention) before the sum with the stream, or with
    ``placement="parallel"`` its normalised input. timm's Swin hands attention windows, so the
    default is the MLPs alone. The branch starts at zero, the original's near zero. The original's
    dropout of 0.1 is left out, and so are its frozen output norms.

    Args:
        width: Width of the bottleneck.
        sites: ``"mlp"``, ``"attn"`` or ``"both"``. Sites whose tokens are no map (windows, mask
            units) get nothing; a warning names them.
        placement: ``"serial"`` reads the site's output, ``"parallel"`` its input.

    Raises:
        NoSiteError: No such site works on a map.
        HyperparameterError: A parallel branch has no place.
    """

    name: ClassVar[str] = "mona"
    paper: ClassVar[str] = "Yin et al. 2025 (Mona), arXiv 2408.08345, section 3"

    width: int = 64
    placement: Literal["parallel", "serial"] = "serial"

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 n d + 5 d + n^2 + 88 n)`` with the bottleneck's width n."""
        return super().count(info, tasks)

    def _branch(self, site: Site) -> nn.Module:
        return MonaAdapter(site.width, self.width)

    def _size(self, d: int) -> int:
        n = self.width
        return 2 * n * d + 5 * d + n * n + 88 * n
