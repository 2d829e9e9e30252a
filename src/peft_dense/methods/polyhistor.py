"""Polyhistor: the adapters of all tasks made by one decomposed hypernetwork per block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn
from typing_extensions import Self

from peft_dense.backbones import BackboneInfo, Site
from peft_dense.methods.base import (
    Method,
    attach,
    bake_adapters,
    check_adapter,
    register,
    warn_of_rank,
    warn_of_waists,
    width_of,
)
from peft_dense.methods.hypernetworks import (
    EMBEDDING,
    HIDDEN,
    BlockHyperNetwork,
    JointProjections,
    Projections,
    SiteGenerators,
    TaskHyperNetworks,
    Vectors,
    gain_for,
)
from peft_dense.nn import GeneratedBottleneck

__all__ = ["Polyhistor"]


@register
@dataclass(frozen=True, kw_only=True)
class Polyhistor(Method):
    """Adds bottlenecks whose weights a decomposed hypernetwork per block makes for each task.

    Polyhistor, section 4.1: the hypernetwork reads the task's embedding and makes each projection
    as a product of two low-rank matrices (equation 3). A path per task, hypernetworks shared by
    all. It trains at an adapter's learning rate: embeddings and generators are scaled so that a
    step of Adam moves a made weight by about the rate (:class:`~peft_dense.nn.FanInLinear`).

    Args:
        ratio: Down-projection ratio rho; ``n = d / rho``.
        rank: Rank r of the made matrices; None takes ``max(1, floor(n / 4))``.
        k: Width of the embedding that the generators read.
        norm: LayerNorm, made by the hypernetwork too, on the adapter's input or output, or none.
        sites: ``"mlp"``, ``"attn"`` or ``"both"``.
        activation: Name of the non-linearity. Where tokens are alike, ReLU may silence a
            bottleneck of two or three units for all of them, and then nothing trains: ``"gelu"``
            doesn't.
        placement: ``"parallel"`` reads the site's input, ``"serial"`` its output.
        joint: One low-rank pair for the joint d x 2n matrix, as equation 3 is printed, instead of
            one pair for the way down and one for the way up, as the parameter count implies.

    Raises:
        HyperparameterError: ``ratio`` doesn't divide a width.
        NoSiteError: The backbone has no such sites.
    """

    name: ClassVar[str] = "polyhistor"
    paper: ClassVar[str] = "Polyhistor, section 4.1"
    one_path: ClassVar[bool] = False

    ratio: int = 16
    rank: int | None = None
    k: int = 64
    norm: Literal["in", "out"] | None = "in"
    activation: str = "relu"
    sites: Literal["mlp", "attn", "both"] = "mlp"
    placement: Literal["parallel", "serial"] = "parallel"
    joint: bool = False

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_adapter(self.norm, self.sites, self.placement)

    def resolve(self, info: BackboneInfo) -> Self:
        """Check the widths; what can hardly train is warned of."""
        waists = {site.name: width_of(site, self.ratio) for site in info.find(self.sites)}
        warn_of_waists(self, waists, self.ratio)
        warn_of_rank(self, waists, self.rank)
        return self

    def shared(self, info: BackboneInfo, tasks: Sequence[str]) -> nn.Module:
        """Make the task embeddings and a hypernetwork per block."""
        blocks = []
        for sites in _blocks(info, self.sites):
            generators = [self._generators(site, width_of(site, self.ratio)) for site in sites]
            blocks.append(BlockHyperNetwork(self.k, generators))
        return TaskHyperNetworks(tasks, blocks)

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a generated bottleneck at every site."""
        assert shared is not None
        (task,) = tasks
        for block, sites in enumerate(_blocks(info, self.sites)):
            for place, site in enumerate(sites):
                branch = GeneratedBottleneck(
                    shared, block, place, task, norm=self.norm, activation=self.activation
                )
                attach(path, site, branch, self.placement)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Bake the made weights into plain bottlenecks."""
        bake_adapters(path, info.find(self.sites), lambda adapter: adapter.bake())

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T e + sum_blocks { (e+1) h + (h+1) k + 2 k + sum_sites (k+1) (w + n + d [+ 2 d]) }``.

        With ``w = 2 r (d + n)``, or ``r (d + 2 n)`` for ``joint``.
        """
        e, h, k = EMBEDDING, HIDDEN, self.k
        total = tasks * e
        for sites in _blocks(info, self.sites):
            total += (e + 1) * h + (h + 1) * k + 2 * k
            for site in sites:
                d, n = site.width, width_of(site, self.ratio)
                total += (k + 1) * (self._made(d, n) + n + d + (2 * d if self.norm else 0))
        return total

    def _generators(self, site: Site, n: int) -> SiteGenerators:
        kind = JointProjections if self.joint else Projections
        gain = gain_for(self.k)
        projections = kind(self.k, site.width, n, self._rank(n), gain)
        return SiteGenerators(projections, Vectors(self.k, site.width, n, bool(self.norm), gain))

    def _made(self, d: int, n: int) -> int:
        """Count the entries that make both projections."""
        return self._rank(n) * (d + 2 * n if self.joint else 2 * (d + n))

    def _rank(self, n: int) -> int:
        return max(1, n // 4) if self.rank is None else self.rank


def _blocks(info: BackboneInfo, kinds: str) -> list[list[Site]]:
    """Group the sites by the block they belong to."""
    groups: dict[str, list[Site]] = {}
    for site in info.find(kinds):
        groups.setdefault(site.name.rpartition(".")[0], []).append(site)
    return list(groups.values())
