"""Hyperformer: the adapters of all tasks made by one full hypernetwork per block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from peft_dense.backbones import Site
from peft_dense.errors import HyperparameterError
from peft_dense.methods.base import register
from peft_dense.methods.hypernetworks import SiteGenerators, Vectors, gain_for
from peft_dense.methods.polyhistor import Polyhistor
from peft_dense.nn import HyperNetwork

__all__ = ["Hyperformer"]


@register
@dataclass(frozen=True, kw_only=True)
class Hyperformer(Polyhistor):
    """Adds bottlenecks whose weights a hypernetwork per block makes entry by entry for each task.

    Mahabadi et al. 2021a; Polyhistor, section 4.1, equation 2. Like Polyhistor with undecomposed
    generators, after attention and after MLP; figure 3b's reduced size has ratio 32.

    Checked against the official code (rabeehk/hyperformer): the trunk (linear, ReLU, linear,
    LayerNorm), one linear generator per matrix, bias and LayerNorm, places after attention and
    feed-forward part and before the residual sum. What differs: there a made LayerNorm stands at
    the output (``norm="out"``), with a weight that is made as it is; over a silent ``up`` that
    would multiply the first update by up to ``1 / sqrt(eps)``, so here it stands at the input and
    its weight is made as the difference from one. There the activation is GELU (Polyhistor's
    text has ReLU adapters), the trunk also reads the layer's number, as one hypernetwork serves all
    layers (Polyhistor's equation 2 has one per layer), and all weights start normal with
    standard deviation 0.01; here the start is a constant of ours (``FanInLinear``).
    """

    name: ClassVar[str] = "hyperformer"
    paper: ClassVar[str] = "Mahabadi et al. 2021a; Polyhistor, section 4.1"

    ratio: int = 8
    sites: Literal["mlp", "attn", "both"] = "both"
    placement: Literal["parallel", "serial"] = "serial"

    def __post_init__(self) -> None:
        """Refuse what only a decomposed hypernetwork has."""
        super().__post_init__()
        if self.joint or self.rank is not None:
            raise HyperparameterError(
                "hyperformer makes whole matrices: joint and rank have no meaning; use polyhistor."
            )

    def _generators(self, site: Site, n: int) -> SiteGenerators:
        projections = FullProjections(self.k, site.width, n)
        vectors = Vectors(self.k, site.width, n, bool(self.norm), gain_for(self.k))
        return SiteGenerators(projections, vectors)

    def _made(self, d: int, n: int) -> int:
        return 2 * d * n


class FullProjections(nn.Module):
    """Turn (..., k) into down (..., d, n) and up (..., n, d), entry by entry."""

    def __init__(self, k: int, d: int, n: int) -> None:
        super().__init__()
        gain = gain_for(k)
        self.down, self.up = HyperNetwork(k, d, n, gain=gain), HyperNetwork(k, n, d, gain=gain)
        self.up.zero_()

    def forward(self, v: Tensor) -> dict[str, Tensor]:
        """Make both projections."""
        return {"down": self.down(v), "up": self.up(v)}
