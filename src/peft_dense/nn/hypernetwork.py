"""Hypernetworks: an embedding of a task or a layer in, the weight of an adapter out.

Their weights start so that the generated ones have the variance of ``nn.Linear``'s, 1 / (3 in),
for an embedding v whose k entries have a mean square of 1: a generator whose weights have variance
g makes entries of variance ``g |v|^2 = g k``. (Standard normal embeddings have that mean square on
average; its spread makes the average variance of a decomposed weight 1 + 2 / k times as large.)
The generators' biases start at zero.

Generators are :class:`~peft_dense.nn.FanInLinear`: what they make moves in a step of Adam as far as
a weight does that trains by itself, whatever k is. With ordinary linears it moves some k / 2 times
as far, and a rate that trains an adapter draws the weights anew at every step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from peft_dense.layout import check_last_axis
from peft_dense.nn._init import linear_variance
from peft_dense.nn.checks import check_whole
from peft_dense.nn.fan_in import FanInLinear

__all__ = ["DecomposedHyperNetwork", "HyperNetwork", "TaskEmbedding"]


class TaskEmbedding(nn.Module):
    """Hold one learnt vector, drawn from a normal distribution of mean zero.

    Args:
        size: Length of the vector, its number of parameters.
        std: Standard deviation.

    Shape:
        No input; gives ``(size,)``.

    Example:
        >>> TaskEmbedding(64)().shape
        torch.Size([64])
    """

    def __init__(self, size: int, *, std: float = 1.0) -> None:
        super().__init__()
        check_whole("size", size)
        self.std = std
        self.weight = nn.Parameter(torch.empty(size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the vector anew."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self) -> Tensor:
        """Give the vector."""
        return self.weight


class DecomposedHyperNetwork(nn.Module):
    """Turn an embedding into a weight of low rank: ``W = P(v) Q(v)^T``.

    Polyhistor, section 4.1, equation 3: two linear generators, ``p`` and ``q``, make the in x rank
    matrix P and the out x rank matrix Q. W acts on rows, ``x @ W``.

    P starts with variance 1 / (3 in) and Q with 1 / rank, so that W, a sum of rank products, has
    variance 1 / (3 in), and moves with P as far as P does. Hence the generators start with
    1 / (3 in k) and 1 / (rank k); a silent one (:meth:`zero_`) has Q at zero and P at 1 / rank, so
    that W moves with Q as far as Q does.

    Args:
        embedding_dim: Length of the embedding, k.
        in_features: Rows of W, d in the paper.
        out_features: Columns of W, n or 2 n in the paper.
        rank: Columns of P and Q, r; ``k r (in + out)`` parameters.
        bias: Give the generators biases, ``r (in + out)`` parameters more.
        gain: A constant factor of what a step moves; the start doesn't depend on it.

    Shape:
        ``(..., k) -> (..., in, out)``

    Raises:
        HyperparameterError: If a size isn't a whole number from 1 up.
        ShapeError: If the last axis of the input isn't k wide.

    Example:
        >>> hyper = DecomposedHyperNetwork(64, 96, 48, rank=12)
        >>> hyper(torch.randn(4, 64)).shape
        torch.Size([4, 96, 48])
    """

    def __init__(
        self,
        embedding_dim: int,
        in_features: int,
        out_features: int,
        rank: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_whole("embedding_dim", embedding_dim)
        check_whole("rank", rank)
        self.embedding_dim, self.rank = embedding_dim, rank
        self.in_features, self.out_features = in_features, out_features
        self.p = FanInLinear(embedding_dim, in_features * rank, bias=bias, gain=gain)
        self.q = FanInLinear(embedding_dim, out_features * rank, bias=bias, gain=gain)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both generators anew."""
        self.p.reset_parameters(linear_variance(self.in_features) / self.embedding_dim)
        self.q.reset_parameters(1 / (self.rank * self.embedding_dim))

    def zero_(self) -> None:
        """Make every generated weight zero; ``q`` still gets gradients."""
        self.p.reset_parameters(1 / (self.rank * self.embedding_dim))
        self.q.reset_parameters(0.0)

    def forward(self, v: Tensor) -> Tensor:
        """Generate P and Q, and give their product."""
        check_last_axis(v, self.embedding_dim, "DecomposedHyperNetwork")
        p = torch.unflatten(self.p(v), -1, (self.in_features, self.rank))
        q = torch.unflatten(self.q(v), -1, (self.out_features, self.rank))
        return p @ q.mT


class HyperNetwork(nn.Module):
    """Turn an embedding into a weight by one linear generator, entry by entry.

    Hyperformer (Mahabadi et al. 2021) as Polyhistor writes it in section 4.1, equation 2. W acts
    on rows, ``x @ W``. The generator starts with variance 1 / (3 in k).

    Args:
        embedding_dim: Length of the embedding, k.
        in_features: Rows of W.
        out_features: Columns of W; ``k in out`` parameters.
        bias: Give the generator a bias, ``in out`` parameters more.
        gain: A constant factor of what a step moves; the start doesn't depend on it.

    Shape:
        ``(..., k) -> (..., in, out)``

    Raises:
        HyperparameterError: If k isn't a whole number from 1 up.
        ShapeError: If the last axis of the input isn't k wide.

    Example:
        >>> HyperNetwork(64, 96, 12)(torch.randn(64)).shape
        torch.Size([96, 12])
    """

    def __init__(
        self,
        embedding_dim: int,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        check_whole("embedding_dim", embedding_dim)
        self.embedding_dim = embedding_dim
        self.in_features, self.out_features = in_features, out_features
        self.generator = FanInLinear(
            embedding_dim, in_features * out_features, bias=bias, gain=gain
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the generator anew."""
        self.generator.reset_parameters(linear_variance(self.in_features) / self.embedding_dim)

    def zero_(self) -> None:
        """Make every generated weight zero; the generator still gets gradients."""
        self.generator.reset_parameters(0.0)

    def forward(self, v: Tensor) -> Tensor:
        """Generate the weight."""
        check_last_axis(v, self.embedding_dim, "HyperNetwork")
        return torch.unflatten(self.generator(v), -1, (self.in_features, self.out_features))
