"""The parts of Polyhistor's hypernetworks: the trunk that reads embeddings, and the generators.

Equations give what they compute; the constants here make it learn. A step of Adam is to move a
made weight by about the learning rate, and to turn the codes that the generators read by little
(``tests/methods/test_step_sizes.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from peft_dense.nn import DecomposedHyperNetwork, FanInLinear, TaskDict, TaskEmbedding
from peft_dense.nn._init import linear_variance

__all__ = [
    "DENSE_GAIN",
    "EMBEDDING",
    "HIDDEN",
    "HIGHEST_RATE",
    "SPREAD",
    "BlockHyperNetwork",
    "JointProjections",
    "Projections",
    "SiteGenerators",
    "TaskHyperNetworks",
    "Vectors",
    "gain_for",
    "trunk",
]

EMBEDDING, HIDDEN = 512, 128
"""Width of the task embeddings and of the hidden layer that reads them (Hyperformer's values)."""

HIGHEST_RATE = 0.02
"""Of what hypernetworks may learn at: at 2e-3 a step turns a code by 0.01."""

SPREAD = 2.0
"""Standard deviation of the embeddings that a trunk reads: a step turns larger ones less."""

THRESHOLD = 0.75
"""What a hidden unit must reach to be active, at the start; before it, the units spread by 0.58."""

GAIN, DENSE_GAIN = 3.0, 2.5
"""Of the generators: for sparse codes, whose entries have a mean size of 0.6, and for others."""


def trunk(inputs: int, k: int) -> nn.Sequential:
    """Make the perceptron that reads embeddings: linear, ReLU, linear, LayerNorm.

    Its linears have the fan-in multiplier: all generators read its output, and with ordinary
    linears one step of Adam at 2e-3 turns that output nearly right around.

    It starts with sparse codes: a tenth of the hidden units is active for an embedding, and each
    feeds entries of its own. Adam divides what a column of a generator moves by the gradients of
    all codes that are active in it; codes that overlap everywhere, as those of a trunk of ordinary
    start do (a correlation of 0.3 between unrelated embeddings), leave each one little of its own.
    """
    start = linear_variance(inputs) / SPREAD**2
    first = FanInLinear(inputs, HIDDEN, gain=1 / SPREAD, variance=start)
    second = FanInLinear(HIDDEN, k, variance=0.0)
    with torch.no_grad():
        assert first.bias is not None
        first.bias.fill_(-THRESHOLD / first.multiplier)
        for unit in range(max(HIDDEN, k)):
            second.weight[unit % k, unit % HIDDEN] = 1 / second.multiplier
    return nn.Sequential(first, nn.ReLU(), second, nn.LayerNorm(k))


def gain_for(k: int, sparse: float = GAIN) -> float:
    """Give the gain of generators that read a trunk's code of k entries; short codes are dense."""
    return sparse if k >= 32 else DENSE_GAIN


class TaskHyperNetworks(nn.Module):
    """Turn (block, place in it, task) into adapter weights: task embeddings and a net per block."""

    l2_decay: ClassVar[bool] = False
    """Its weights are large and their gradients small: decay added to them would outweigh them."""
    highest_rate: ClassVar[float] = HIGHEST_RATE
    """Beyond it, a step turns what the generators read by more than a tenth."""

    def __init__(self, tasks: Sequence[str], blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.tasks = TaskDict()
        for task in tasks:
            self.add_task(task)
        self.blocks = nn.ModuleList(blocks)

    def add_task(self, name: str) -> None:
        """Give a new task an embedding."""
        self.tasks[name] = TaskEmbedding(EMBEDDING, std=SPREAD)

    def forward(self, block: int, place: int, task: str) -> dict[str, Tensor]:
        """Make the weights of one adapter for one task."""
        weights: dict[str, Tensor] = self.blocks[block](self.tasks[task](), place)
        return weights


class BlockHyperNetwork(nn.Module):
    """Turn an embedding (e,) into the weights of one of the block's bottlenecks."""

    def __init__(self, k: int, sites: Iterable[nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk(EMBEDDING, k)
        self.sites = nn.ModuleList(sites)

    def forward(self, embedding: Tensor, place: int) -> dict[str, Tensor]:
        """Read the embedding and make the weights for one place."""
        weights: dict[str, Tensor] = self.sites[place](self.trunk(embedding))
        return weights


class SiteGenerators(nn.Module):
    """Turn (..., k) into the projections, biases and LayerNorm of one bottleneck."""

    def __init__(self, projections: nn.Module, vectors: nn.Module) -> None:
        super().__init__()
        self.projections, self.vectors = projections, vectors

    def forward(self, v: Tensor) -> dict[str, Tensor]:
        """Make everything."""
        return {**self.projections(v), **self.vectors(v)}


class Projections(nn.Module):
    """Turn (..., k) into down (..., d, n) and up (..., n, d), a low-rank pair each."""

    def __init__(self, k: int, d: int, n: int, rank: int, gain: float) -> None:
        super().__init__()
        self.down = DecomposedHyperNetwork(k, d, n, rank, gain=gain)
        self.up = DecomposedHyperNetwork(k, n, d, rank, gain=gain)
        self.up.zero_()

    def forward(self, v: Tensor) -> dict[str, Tensor]:
        """Make both projections."""
        return {"down": self.down(v), "up": self.up(v)}


class JointProjections(nn.Module):
    """Turn (..., k) into down and up as the halves of one low-rank (..., d, 2 n) matrix."""

    def __init__(
        self, k: int, d: int, n: int, rank: int, gain: float, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.joint = DecomposedHyperNetwork(k, d, 2 * n, rank, bias=bias, gain=gain)
        # One P makes both halves: small, as the way down starts. This constant gives the way up
        # the P of variance 1 / rank that the silent pair of its own has.
        self.up_factor = math.sqrt(3 * d / rank)
        with torch.no_grad():
            # Rows of q belong to columns of the matrix; those of the way up start at zero.
            for parameter in self.joint.q.parameters():
                parameter[n * rank :].zero_()

    def forward(self, v: Tensor) -> dict[str, Tensor]:
        """Make the joint matrix and split it."""
        down, up = self.joint(v).chunk(2, dim=-1)
        return {"down": down, "up": self.up_factor * up.mT}


class Vectors(nn.Module):
    """Turn (..., k) into the biases of down (n) and up (d), and the LayerNorm's two vectors (d).

    All start at zero; the LayerNorm's weight is made as its difference from one.
    """

    def __init__(self, k: int, d: int, n: int, norm: bool, gain: float) -> None:
        super().__init__()
        self.sizes = {"down_bias": n, "up_bias": d}
        if norm:
            self.sizes |= {"norm_weight": d, "norm_bias": d}
        self.generator = FanInLinear(k, sum(self.sizes.values()), gain=gain, variance=0.0)

    def forward(self, v: Tensor) -> dict[str, Tensor]:
        """Make the vectors."""
        parts = self.generator(v).split(list(self.sizes.values()), dim=-1)
        return dict(zip(self.sizes, parts, strict=True))
