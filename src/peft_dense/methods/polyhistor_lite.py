"""Polyhistor-Lite: one decomposed hypernetwork for all layers, scaled up by Kronecker products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Self

from peft_dense.backbones import BackboneInfo
from peft_dense.errors import HyperparameterError
from peft_dense.methods.base import (
    Method,
    attach,
    bake_adapters,
    check_adapter,
    register,
    warn_of_rank,
    warn_of_waists,
)
from peft_dense.methods.hypernetworks import (
    DENSE_GAIN,
    EMBEDDING,
    HIDDEN,
    HIGHEST_RATE,
    SPREAD,
    JointProjections,
    Projections,
    Vectors,
    gain_for,
    trunk,
)
from peft_dense.nn import (
    GeneratedBottleneck,
    LayerwiseScalingKernel,
    TaskDict,
    TaskEmbedding,
    VectorScalingKernel,
)
from peft_dense.nn.checks import check_divides

__all__ = ["PolyhistorLite"]

GAIN = 4.0
"""As Polyhistor's, where the codes of all layers share what moves, and each has less of it."""


@register
@dataclass(frozen=True, kw_only=True)
class PolyhistorLite(Method):
    """Adds bottlenecks beside the MLPs, made from templates by layer-wise scaling kernels.

    Polyhistor, section 4.3: one hypernetwork reads a task embedding and, for a layer of scale s,
    each of its s layer embeddings, and makes s template kernels (equation 5); their Kronecker
    products with s scaling kernels, summed, are the adapter's weights (equation 6). The template is
    as wide as the widths' greatest common divisor: the first stage, in the usual pyramid. A path
    per task, everything but the task embeddings shared by all. It trains at an adapter's learning
    rate: embeddings, generators and kernels are scaled so that a step of Adam moves a made weight
    by about the rate (:class:`~peft_dense.nn.FanInLinear`).

    Args:
        ratio: Down-projection ratio rho; the template is ``d0 x d0 / rho``.
        rank: Rank r of the templates; None takes ``max(1, floor(n0 / 4))``.
        k: Width of the embedding that the generators read; table 2 varies it.
        norm: LayerNorm, made and scaled likewise, on the adapter's input or output, or none.
        activation: Name of the non-linearity. Where tokens are alike, ReLU may silence a
            bottleneck of two or three units for all of them, and then nothing trains: ``"gelu"``
            doesn't.
        placement: ``"parallel"`` reads the MLP's input, ``"serial"`` its output.
        per_task_kernels: Scaling kernels for every task, as equation 6 is printed; the parameter
            count implies kernels that the tasks share.
        literal: Equation 5 to the letter: embeddings of k / 2 that the generators read as they are
            (no perceptron), one joint low-rank pair without biases, neither biases nor LayerNorm in
            the adapters. Its count can't be what the paper's tables report.

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
    activation: str = "relu"
    placement: Literal["parallel", "serial"] = "parallel"
    per_task_kernels: bool = False
    literal: bool = False

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_adapter(self.norm, "mlp", self.placement)
        if self.literal:
            object.__setattr__(self, "norm", None)
            if self.k % 2:
                raise HyperparameterError(
                    f"k={self.k} must be even: literal=True halves it for task and layer."
                )

    def resolve(self, info: BackboneInfo) -> Self:
        """Check the widths; what can hardly train is warned of."""
        waists = {"the template": self._sizes(info)[1]}
        warn_of_waists(self, waists, self.ratio)
        warn_of_rank(self, waists, self.rank)
        return self

    def shared(self, info: BackboneInfo, tasks: Sequence[str]) -> nn.Module:
        """Make the embeddings, the hypernetwork and every layer's scaling kernels."""
        d, n, rank, scales = self._sizes(info)
        if self.literal:
            return LiteHyperNetwork(
                tasks,
                scales,
                self.k // 2,
                nn.Identity(),
                JointProjections(self.k, d, n, rank, DENSE_GAIN, bias=False),
                None,
                ("joint",),
                self.per_task_kernels,
                1.0,
            )
        gain = gain_for(self.k, GAIN)
        return LiteHyperNetwork(
            tasks,
            scales,
            EMBEDDING,
            trunk(2 * EMBEDDING, self.k),
            Projections(self.k, d, n, rank, gain),
            Vectors(self.k, d, n, bool(self.norm), gain),
            ("down", "up", "bias", "norm") if self.norm else ("down", "up", "bias"),
            self.per_task_kernels,
            SPREAD,
        )

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Put a generated bottleneck at every MLP."""
        assert shared is not None
        (task,) = tasks
        for index, site in enumerate(info.find("mlp")):
            branch = GeneratedBottleneck(
                shared, index, task, norm=self.norm, activation=self.activation
            )
            attach(path, site, branch, self.placement)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Bake the made weights into plain bottlenecks."""
        bake_adapters(path, info.find("mlp"), lambda adapter: adapter.bake())

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T e + e sum s + (2e+1) h + (h+1) k + 2 k + (k+1) w + sum_{s>1} (2 s^3 + 2 s^2)``.

        With ``w = 2 r (d0 + n0) + n0 + d0 [+ 2 d0]``, and ``s^2`` a layer less without a norm; the
        last sum T times with kernels a task. Literal: ``(T + sum s) k/2 + k r (d0 + 2 n0) + sum
        s^3``.
        """
        d, n, r, scales = self._sizes(info)
        sets = tasks if self.per_task_kernels else 1
        large = [s for s in scales if s > 1]
        if self.literal:
            embeddings = self.k // 2 * (tasks + sum(scales))
            return embeddings + self.k * r * (d + 2 * n) + sets * sum(s**3 for s in large)
        e, h, k = EMBEDDING, HIDDEN, self.k
        made = 2 * r * (d + n) + n + d + (2 * d if self.norm else 0)
        kernels = sum(2 * s**3 + (2 if self.norm else 1) * s**2 for s in large)
        reading = (2 * e + 1) * h + (h + 1) * k + 2 * k
        return (tasks + sum(scales)) * e + reading + (k + 1) * made + sets * kernels

    def _sizes(self, info: BackboneInfo) -> tuple[int, int, int, list[int]]:
        """Template width, width of its bottleneck, rank, and the scale of every layer."""
        widths = [site.width for site in info.find("mlp")]
        d = math.gcd(*widths)
        # The template is as wide as the greatest common divisor of the widths.
        check_divides("ratio", self.ratio, **{"the template's width": d})
        n = d // self.ratio
        rank = max(1, n // 4) if self.rank is None else self.rank
        return d, n, rank, [width // d for width in widths]


class LiteHyperNetwork(nn.Module):
    """Turn (layer, task) into the weights of that layer's adapter, s times the template's size.

    Args:
        tasks: Names of the tasks.
        scales: Scale s of every layer; a layer owns s embeddings.
        embedding: Width of the task and layer embeddings.
        reader: What reads a task and a layer embedding, joined.
        projections: Makes the templates of down and up.
        vectors: Makes the templates of biases and LayerNorm, or None.
        kinds: The kinds of scaling kernels a layer has.
        per_task: Whether every task has kernels of its own.
        std: Standard deviation that the embeddings start with.
    """

    l2_decay: ClassVar[bool] = False
    """As of Polyhistor's: decay added to the gradients would outweigh them."""
    highest_rate: ClassVar[float] = HIGHEST_RATE
    """As Polyhistor's."""

    def __init__(
        self,
        tasks: Sequence[str],
        scales: Sequence[int],
        embedding: int,
        reader: nn.Module,
        projections: nn.Module,
        vectors: nn.Module | None,
        kinds: Sequence[str],
        per_task: bool,
        std: float,
    ) -> None:
        super().__init__()
        self.embedding, self.std = embedding, std
        self.scales, self.kinds = tuple(scales), tuple(kinds)
        self.reader, self.projections, self.vectors = reader, projections, vectors
        self.layers = nn.ParameterList(std * torch.randn(scale, embedding) for scale in scales)
        self.kernels = None if per_task else self._new_kernels()
        self.tasks = TaskDict()
        for task in tasks:
            self.add_task(task)

    def add_task(self, name: str) -> None:
        """Give a new task an embedding, and kernels where every task has its own."""
        parts: dict[str, nn.Module] = {"embedding": TaskEmbedding(self.embedding, std=self.std)}
        if self.kernels is None:
            parts["kernels"] = self._new_kernels()
        self.tasks[name] = nn.ModuleDict(parts)

    def forward(self, layer: int, task: str) -> dict[str, Tensor]:
        """Make s templates for the layer and scale them up."""
        own = self.tasks[task]
        place = self.layers[layer]
        v = self.reader(torch.cat([own["embedding"]().expand_as(place), place], dim=-1))
        weights: dict[str, Tensor] = self.projections(v)
        if self.vectors is not None:
            weights = {**weights, **self.vectors(v)}
        kernels = own["kernels"] if self.kernels is None else self.kernels
        scaled: dict[str, Tensor] = kernels[layer](weights)
        return scaled

    def _new_kernels(self) -> nn.ModuleList:
        return nn.ModuleList(LayerKernels(scale, self.kinds) for scale in self.scales)


class LayerKernels(nn.Module):
    """Scale a layer's s templates up, each by the kernel of its kind."""

    def __init__(self, scale: int, kinds: Sequence[str]) -> None:
        super().__init__()
        makers: dict[str, type[nn.Module]] = {
            "down": LayerwiseScalingKernel,
            "up": LayerwiseScalingKernel,
            "joint": LayerwiseScalingKernel,
            "bias": VectorScalingKernel,
            "norm": VectorScalingKernel,
        }
        self.kernels = nn.ModuleDict({kind: makers[kind](scale) for kind in kinds})

    def forward(self, templates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Scale every template up."""
        if "joint" in self.kernels:
            # Equation 6 scales the d x 2n matrix; its halves are the two projections.
            joint = torch.cat([templates["down"], templates["up"].mT], dim=-1)
            down, up = self.kernels["joint"](joint).chunk(2, dim=-1)
            return {"down": down, "up": up.mT}
        return {name: self.kernels[_KERNEL_OF[name]](part) for name, part in templates.items()}


_KERNEL_OF = {
    "down": "down",
    "up": "up",
    "down_bias": "bias",
    "up_bias": "bias",
    "norm_weight": "norm",
    "norm_bias": "norm",
}
