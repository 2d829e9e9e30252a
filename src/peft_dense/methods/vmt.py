"""VMT-Adapter and VMT-Adapter-Lite: one shared adapter, a scale and a shift per task, one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from peft_dense.backbones import BackboneInfo, Site, adapter_at, add_beside
from peft_dense.errors import HyperparameterError, NoSiteError
from peft_dense.layout import tokens_to_map
from peft_dense.methods.base import Method, one_of, register, width_of
from peft_dense.nn import VMTAdapter

__all__ = ["VMT", "VMTLite"]


_CLASS_TOKENS = 16
"""The most class and register tokens that a plain ViT puts before its patches."""


@register
@dataclass(frozen=True, kw_only=True)
class VMT(Method):
    """Adds a shared adapter beside every MLP and gives each task a scaled and shifted share of it.

    VMT-Adapter, section 4.1. With ``h = relu(x W_down) W_up`` (equation 3) and gating ratio lambda,
    the stream receives ``lambda h``; task t receives, at every stage, the stage output plus
    ``sum_l alpha_tl * (1 - lambda) h_l + beta_tl`` over the stage's layers (equations 4 and 5). The
    task-specific parts never enter the stream, so one pass serves any number of tasks.

    Args:
        ratio: Down-projection ratio rho; ``n = d / rho``.
        gate: Gating ratio lambda in [0, 1], a constant. The paper doesn't give its value.
        norm: LayerNorm on the adapter's input (``"in"``) or none. Implied by the paper's counts.
        collect: ``"sum"`` over a stage's layers, or ``"last"`` for the last layer's part alone.

    Raises:
        HyperparameterError: ``ratio`` doesn't divide a width.
        NoSiteError: A feed-forward part works on another map than its stage's output.
    """

    name: ClassVar[str] = "vmt"
    paper: ClassVar[str] = "VMT-Adapter, section 4.1"
    one_path: ClassVar[bool] = True

    ratio: int = 4
    gate: float = 0.5
    norm: Literal["in"] | None = "in"
    collect: Literal["sum", "last"] = "sum"

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        one_of("norm", self.norm, ("in", None))
        one_of("collect", self.collect, ("sum", "last"))
        if not 0 <= self.gate <= 1:
            raise HyperparameterError(f"gate={self.gate!r} must lie between 0 and 1.")

    def resolve(self, info: BackboneInfo) -> VMT:
        """Check the widths, and that the tasks' parts fit on the stage outputs."""
        for site in info.find("mlp"):
            width_of(site, self.ratio)
            if not _fits(info, site):
                output = (info.channels[site.stage], *info.grids[site.stage])
                raise NoSiteError(
                    f"{self.name} adds each layer's part to its stage output, but {site.name!r} "
                    f"has {site.width} channels on {site.grid} tokens and stage {site.stage} of "
                    f"{info.model} is {output}. Use shared_adapter, which adds to the stream only, "
                    "or say where the tokens lie with family=Family(to_map=...)."
                )
        return self

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a VMTAdapter beside every MLP."""
        for site in info.find("mlp"):
            add_beside(path, site, self._layer(site, tasks if self._collects(info, site) else ()))

    def _collects(self, info: BackboneInfo, site: Site) -> bool:
        """Whether the tasks take their part of a layer."""
        last = [other for other in info.find("mlp") if other.stage == site.stage][-1]
        return self.collect == "sum" or site == last

    def _layer(self, site: Site, tasks: Sequence[str]) -> VMTAdapter:
        return VMTAdapter(site.width, tasks, ratio=self.ratio, gate=self.gate, norm=self.norm)

    def task_features(
        self,
        path: nn.Module,
        info: BackboneInfo,
        outputs: list[Tensor],
        tasks: Sequence[str],
        image: Tensor,
    ) -> dict[str, list[Tensor]]:
        """Add each task's part to the stage outputs (equation 5)."""
        features: dict[str, list[Tensor]] = {task: [] for task in tasks}
        for stage, output in enumerate(outputs):
            sites = [site for site in info.find("mlp") if site.stage == stage]
            layers: list[VMTAdapter] = [adapter_at(path, site) for site in sites]  # type: ignore[misc]
            latents = [_latent(layer) for layer in layers]
            if self.collect == "last":
                layers, latents = layers[-1:], latents[-1:]
            for task in tasks:
                parts = [
                    layer.specific(latent, task)
                    for layer, latent in zip(layers, latents, strict=True)
                ]
                if parts:
                    part = _to_map(path, info, sites[-1], sum(parts[1:], parts[0]), image, output)
                    features[task].append(output + part)
                else:
                    features[task].append(output)
        return features

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 d n + d + 2 d T [+ 2 d])``: projections, bias, scales and shifts, LayerNorm."""
        total = 0
        for site in info.find("mlp"):
            d, n = site.width, width_of(site, self.ratio)
            parts = 2 * d * tasks if self._collects(info, site) else 0
            total += 2 * d * n + d + parts + (2 * d if self.norm else 0)
        return total


@register
@dataclass(frozen=True, kw_only=True)
class VMTLite(VMT):
    """VMT-Adapter whose projections are sums of Kronecker products with shared m x m matrices.

    VMT-Adapter, section 4.2: ``W_down = sum_i S_i (x) D_i`` and ``W_up = sum_i S_i (x) U_i``
    (equation 6) with the m matrices S_i shared by the two, so the projections shrink to 1/m.

    Args:
        m: Number and size of the shared matrices. None takes the paper's 3 where it divides the
            backbone's widths, else the nearest number that does (the larger of two equally near).

    Raises:
        HyperparameterError: ``m`` or ``ratio`` doesn't divide a width.
    """

    name: ClassVar[str] = "vmt_lite"
    paper: ClassVar[str] = "VMT-Adapter, section 4.2"

    m: int | None = None
    norm: Literal["in"] | None = None

    def resolve(self, info: BackboneInfo) -> VMTLite:
        """Settle m for the backbone's widths."""
        super().resolve(info)
        common = math.gcd(*(width_of(site, self.ratio) for site in info.find("mlp")))
        allowed = [m for m in range(1, common + 1) if common % m == 0]
        if self.m is None:
            return replace(self, m=min(allowed, key=lambda m: (abs(m - 3), -m)))
        if self.m not in allowed:
            raise HyperparameterError(
                f"m={self.m!r} doesn't divide the bottlenecks of {info.model} at "
                f"ratio={self.ratio}; they allow {', '.join(map(str, allowed))}."
            )
        return self

    def _layer(self, site: Site, tasks: Sequence[str]) -> VMTAdapter:
        return VMTAdapter(
            site.width, tasks, ratio=self.ratio, gate=self.gate, norm=self.norm, m=self.m
        )

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (2 d n / m + m^3 + d + 2 d T [+ 2 d])``."""
        assert self.m is not None, "resolve() settles m"
        total = 0
        for site in info.find("mlp"):
            d, n = site.width, width_of(site, self.ratio)
            parts = 2 * d * tasks if self._collects(info, site) else 0
            total += 2 * d * n // self.m + self.m**3 + d + parts + (2 * d if self.norm else 0)
        return total


def _latent(layer: VMTAdapter) -> Tensor:
    latent = layer.take()
    assert latent is not None, "the pass has just called every site"
    return latent


def _fits(info: BackboneInfo, site: Site) -> bool:
    """Whether a site's tokens are those of its stage output, but for a few class tokens."""
    height, width = info.grids[site.stage]
    if site.width != info.channels[site.stage]:
        return False
    if len(site.grid) == 2:
        return site.grid == (height, width) or info.family.to_map is not None
    return 0 <= site.tokens - height * width <= _CLASS_TOKENS


def _to_map(
    path: nn.Module, info: BackboneInfo, site: Site, tokens: Tensor, image: Tensor, output: Tensor
) -> Tensor:
    """Lay a site's tokens out as a map of the stage output's size."""
    if info.family.to_map is not None:
        return info.family.to_map(path, site.name, tokens, image)
    height, width = output.shape[-2:]
    return tokens_to_map(tokens, height, width)
