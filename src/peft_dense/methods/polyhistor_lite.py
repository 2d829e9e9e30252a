"""Polyhistor-Lite: one decomposed hypernetwork for all layers, scaled up by Kronecker products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from peft_dense.backbones import BackboneInfo
from peft_dense.errors import HyperparameterError
from peft_dense.methods.base import Method, attach, bake_adapters, one_of, register
from peft_dense.methods.polyhistor import EMBEDDING, HIDDEN, Projections, Vectors, trunk
from peft_dense.nn import (
    GeneratedBottleneck,
    LayerwiseScalingKernel,
    TaskDict,
    TaskEmbedding,
    VectorScalingKernel,
)

__all__ = ["PolyhistorLite"]


@register
@dataclass(frozen=True, kw_only=True)
class PolyhistorLite(Method):
    """Adds bottlenecks beside the MLPs, made from templates by layer-wise scaling kernels.

    Polyhistor, section 4.3: one hypernetwork reads a task embedding and, for a layer of scale s,
    each of its s layer embeddings, and makes s template kernels (equation 5); their Kronecker
    products with s scaling kernels, summed, are the adapter's weights (equation 6). The template is
    as wide as the widths' greatest common divisor: the first stage, in the usual pyramid. A path a
    task, everything but the task embeddings shared by all.

    Args:
        ratio: Down-projection ratio rho; the template is ``d0 x d0 / rho``.
        rank: Rank r of the templates; None takes ``max(1, floor(n0 / 4))``.
        k: Width of the embedding that the generators read; table 2 varies it.
        norm: LayerNorm, made and scaled likewise, on the adapter's input or output, or none.

    Raises:
        HyperparameterError: ``ratio`` doesn't divide the template's width.
        NoSiteError: The backbone has no feed-forward parts.
    """

    name: ClassVar[str] = "polyhistor_lite"
    paper: ClassVar[str] = "Polyhistor, section 4.3"
    one_path: ClassVar[bool] = False

    ratio: int = 2
    rank: int | None = None
    k: int = 64
    norm: Literal["in", "out"] | None = "in"

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        one_of("norm", self.norm, ("in", "out", None))

    def shared(self, info: BackboneInfo, tasks: Sequence[str]) -> nn.Module:
        """Make the embeddings, the hypernetwork and every layer's scaling kernels."""
        d, n, rank, scales = self._sizes(info)
        return LiteHyperNetwork(tasks, scales, self.k, d, n, rank, bool(self.norm))

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a generated bottleneck beside every MLP."""
        assert shared is not None
        (task,) = tasks
        for index, site in enumerate(info.find("mlp")):
            attach(path, site, GeneratedBottleneck(shared, index, task, norm=self.norm))

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Bake the made weights into plain bottlenecks."""
        bake_adapters(path, info.find("mlp"), lambda adapter: adapter.bake())

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T e + e sum s + (2e+1) h + (h+1) k + 2 k + (k+1) w + sum_{s>1} (2 s^3 + 2 s^2)``.

        With ``w = 2 r (d0 + n0) + n0 + d0 [+ 2 d0]``, and ``s^2`` a layer less without a norm.
        """
        d, n, r, scales = self._sizes(info)
        e, h, k = EMBEDDING, HIDDEN, self.k
        made = 2 * r * (d + n) + n + d + (2 * d if self.norm else 0)
        kernels = sum(2 * s**3 + (2 if self.norm else 1) * s**2 for s in scales if s > 1)
        reading = (2 * e + 1) * h + (h + 1) * k + 2 * k
        return tasks * e + e * sum(scales) + reading + (k + 1) * made + kernels

    def _sizes(self, info: BackboneInfo) -> tuple[int, int, int, list[int]]:
        """Template width, template waist, rank, and the scale of every layer."""
        widths = [site.width for site in info.find("mlp")]
        d = math.gcd(*widths)
        if self.ratio < 1 or d % self.ratio:
            allowed = [r for r in range(1, d + 1) if d % r == 0]
            raise HyperparameterError(
                f"ratio={self.ratio!r} doesn't divide the template width {d} (the greatest common "
                f"divisor of {info.model}'s widths); it allows {', '.join(map(str, allowed))}."
            )
        n = d // self.ratio
        rank = max(1, n // 4) if self.rank is None else self.rank
        return d, n, rank, [width // d for width in widths]


class LiteHyperNetwork(nn.Module):
    """Turn (layer, task) into the weights of that layer's adapter, s times the template's size."""

    def __init__(
        self,
        tasks: Sequence[str],
        scales: Sequence[int],
        k: int,
        d: int,
        n: int,
        rank: int,
        norm: bool,
    ) -> None:
        super().__init__()
        self.tasks = TaskDict()
        for task in tasks:
            self.add_task(task)
        self.trunk = trunk(2 * EMBEDDING, k)
        self.projections = Projections(k, d, n, rank)
        self.vectors = Vectors(k, d, n, norm)
        self.layers = nn.ModuleList(_Layer(scale, norm) for scale in scales)

    def add_task(self, name: str) -> None:
        """Give a new task an embedding."""
        self.tasks[name] = TaskEmbedding(EMBEDDING)

    def forward(self, layer: int, task: str) -> dict[str, Tensor]:
        """Make s templates for the layer and scale them up."""
        place = self.layers[layer]
        embedding = place.embeddings
        v = torch.cat([self.tasks[task]().expand_as(embedding), embedding], dim=-1)
        v = self.trunk(v)
        scaled: dict[str, Tensor] = place({**self.projections(v), **self.vectors(v)})
        return scaled


class _Layer(nn.Module):
    """A layer's s embeddings, and the kernels that scale s templates up to its widths."""

    def __init__(self, scale: int, norm: bool) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(scale, EMBEDDING))
        self.down, self.up = LayerwiseScalingKernel(scale), LayerwiseScalingKernel(scale)
        self.bias = VectorScalingKernel(scale)
        self.norm = VectorScalingKernel(scale) if norm else None

    def forward(self, templates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scale up every template with the kernel of its kind."""
        made = {
            "down": self.down(templates["down"]),
            "up": self.up(templates["up"]),
            "down_bias": self.bias(templates["down_bias"]),
            "up_bias": self.bias(templates["up_bias"]),
        }
        if self.norm is not None:
            made["norm_weight"] = self.norm(templates["norm_weight"])
            made["norm_bias"] = self.norm(templates["norm_bias"])
        return made
