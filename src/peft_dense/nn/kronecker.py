"""Linear layers whose weight is a sum of Kronecker products (PHM, Compacter, VMT-Adapter-Lite)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peft_dense.errors import HyperparameterError
from peft_dense.layout import check_last_axis
from peft_dense.nn._init import linear_variance, uniform_
from peft_dense.nn.checks import check_divides, check_whole

__all__ = ["KroneckerLinear", "KroneckerRule", "kronecker_apply", "kronecker_sum"]


def kronecker_sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum Kronecker products: ``sum_i kron(a_i, b_i)``.

    Args:
        a: The left factors.
        b: The right factors, as many.

    Shape:
        ``(n, p, r), (n, q, s) -> (p q, r s)``

    Example:
        >>> a, b = torch.randn(2, 3, 4), torch.randn(2, 5, 6)
        >>> dense = torch.kron(a[0], b[0]) + torch.kron(a[1], b[1])
        >>> torch.allclose(kronecker_sum(a, b), dense, atol=1e-5)
        True
    """
    (_, p, r), (_, q, s) = a.shape, b.shape
    # One product, where einsum makes a batch of products with an axis of 1.
    products = (a.flatten(1).mT @ b.flatten(1)).view(p, r, q, s)
    return products.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def kronecker_apply(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Map the last axis by a sum of Kronecker products without forming it.

    Equals ``x @ kronecker_sum(a, b)``: the last axis is a ``p x q`` matrix X, and
    ``sum_i a_i^T X b_i`` is its image.

    Args:
        x: What is mapped.
        a: The left factors.
        b: The right factors, as many.

    Shape:
        ``(..., p q), (n, p, r), (n, q, s) -> (..., r s)``

    Example:
        >>> a, b, x = torch.randn(2, 3, 4), torch.randn(2, 5, 6), torch.randn(7, 15)
        >>> torch.allclose(kronecker_apply(x, a, b), x @ kronecker_sum(a, b), atol=1e-4)
        True
    """
    grid = torch.unflatten(x, -1, (a.shape[1], b.shape[1]))
    return torch.einsum("...pq,ipr,iqs->...rs", grid, a, b).flatten(-2)


class KroneckerRule(nn.Module):
    """Hold the slow matrices A_1 .. A_n, each n x n, that Kronecker layers may share.

    They start uniform with variance 1 / n; see :class:`KroneckerLinear`. The shared
    weights of Compacter (Mahabadi et al. 2021, section 3).

    Args:
        n: Number and size of the matrices; ``n^3`` parameters.
        std: Start normal with this standard deviation instead: 0.01 in Compacter's official code.

    Raises:
        HyperparameterError: If ``n`` isn't a positive whole number.

    Example:
        >>> rule = KroneckerRule(4)
        >>> one, other = (KroneckerLinear(8, width, 4, rule=rule) for width in (8, 12))
        >>> sum(p.numel() for layer in (one, other) for p in layer.parameters())  # none of the rule
        60
    """

    def __init__(self, n: int, *, std: float | None = None) -> None:
        super().__init__()
        check_whole("n", n)
        self.n, self.std = n, std
        self.weight = nn.Parameter(torch.empty(n, n, n))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        if self.std is None:
            uniform_(self.weight, 1 / self.n)
        else:
            nn.init.normal_(self.weight, std=self.std)

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{self.n}"


class KroneckerLinear(nn.Module):
    """Map the last axis by a sum of Kronecker products: ``x @ sum_i kron(A_i, B_i) + bias``.

    The PHM layer of Zhang et al. 2021; with ``rank`` that of Compacter (Mahabadi et al. 2021);
    with a shared rule that of VMT-Adapter-Lite, section 4.2, equation 6. The slow matrices A_i
    are n x n, the fast ones B_i are (in / n) x (out / n), and i runs from 1 to n.

    An entry of the dense weight is a sum of n products ``a b``. With variance 1 / n for a and
    1 / (3 in) for b that sum has variance 1 / (3 in), as in ``nn.Linear``. Where ``B_i = u_i v_i``
    has rank k, u has variance 1 / (3 in) and v has 1 / k, which gives b the same.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        n: Number of products; ``in out / n`` fast parameters and ``n^3`` slow ones.
        bias: Add a bias, ``out`` more.
        rank: Factorise every B_i to this rank: ``rank (in + out)`` fast parameters instead.
        rule: Slow matrices that another module owns. They are used, but neither registered nor
            counted here, and move only with their owner. ``None`` makes and owns them.
        materialise: Form the dense weight in every call, or apply the factors to each token, which
            takes fewer multiplications where a call has fewer than some ``out / n`` tokens.
        glorot: Start as Compacter's official code does: every fast matrix or factor on its own from
            Glorot's uniform distribution with gain ``sqrt(2)``, the bias at zero. It belongs with
            a rule that starts small.

    Shape:
        ``(..., in) -> (..., out)``

    Raises:
        HyperparameterError: If n doesn't divide both widths, or the rule has another n.
        ShapeError: If the last axis of the input has another width.

    Example:
        >>> layer, x = KroneckerLinear(96, 24, n=4, bias=False), torch.randn(2, 49, 96)
        >>> dense = sum(torch.kron(a, b) for a, b in layer.factors())
        >>> torch.allclose(layer(x), x @ dense, atol=1e-5)
        True
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        n: int,
        *,
        bias: bool = True,
        rank: int | None = None,
        rule: KroneckerRule | None = None,
        materialise: bool = True,
        glorot: bool = False,
    ) -> None:
        super().__init__()
        check_divides("n", n, in_features=in_features, out_features=out_features)
        if rule is not None and rule.n != n:
            raise HyperparameterError(
                f"the given rule has n = {rule.n}, the layer n = {n}; pass KroneckerRule({n})."
            )
        self.in_features, self.out_features = in_features, out_features
        self.n, self.rank, self.materialise, self.glorot = n, rank, materialise, glorot
        # In a tuple, nn.Module doesn't see it: its owner registers it once.
        self._borrowed = () if rule is None else (rule,)
        if rule is None:
            self.rule = KroneckerRule(n)
        q, s = in_features // n, out_features // n
        if rank is None:
            self.fast = nn.Parameter(torch.empty(n, q, s))
        else:
            check_whole("rank", rank, highest=min(q, s), of=f"as the fast matrices are {q} x {s}")
            self.fast_in = nn.Parameter(torch.empty(n, q, rank))
            self.fast_out = nn.Parameter(torch.empty(n, rank, s))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self._reset_fast()

    def reset_parameters(self) -> None:
        """Draw everything anew, except a rule that another module owns."""
        if not self._borrowed:
            self.rule.reset_parameters()
        self._reset_fast()

    def _reset_fast(self) -> None:
        if self.glorot:
            self._reset_as_glorot()
            return
        variance = linear_variance(self.in_features)
        if self.rank is None:
            uniform_(self.fast, variance)
        else:
            uniform_(self.fast_in, variance)
            uniform_(self.fast_out, 1 / self.rank)
        if self.bias is not None:
            uniform_(self.bias, variance)

    def _reset_as_glorot(self) -> None:
        for fast in [self.fast] if self.rank is None else [self.fast_in, self.fast_out]:
            for matrix in fast:
                nn.init.xavier_uniform_(matrix, gain=math.sqrt(2))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @torch.no_grad()
    def zero_(self) -> None:
        """Make the output zero; the fast part's last factor and the bias still get gradients."""
        (self.fast if self.rank is None else self.fast_out).zero_()
        if self.bias is not None:
            self.bias.zero_()

    def factors(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs (A_i, B_i)."""
        return zip(*self._slow_and_fast(), strict=True)

    def _slow_and_fast(self) -> tuple[Tensor, Tensor]:
        slow = (self._borrowed[0] if self._borrowed else self.rule).weight
        return slow, self.fast if self.rank is None else self.fast_in @ self.fast_out

    @property
    def weight(self) -> Tensor:
        """The dense weight ``(out, in)``, as ``nn.Linear`` keeps it."""
        return kronecker_sum(*self._slow_and_fast()).mT

    def forward(self, x: Tensor) -> Tensor:
        """Apply the sum of products, materialised or factored."""
        check_last_axis(x, self.in_features, "KroneckerLinear")
        slow, fast = self._slow_and_fast()
        # Not by the number of tokens: a branch on a shape can't be exported with a dynamic batch.
        # Forward and backward on one CPU core, 768 to 192 with n = 3: 6,272 tokens 34 ms dense,
        # 230 ms factored; 64 tokens 1.0 and 1.3 ms.
        if self.materialise:
            # Adds the bias in the product, not in a pass of its own.
            return F.linear(x, kronecker_sum(slow, fast).mT, self.bias)
        y = kronecker_apply(x, slow, fast)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        """Show the widths, n and the rank."""
        rank = "" if self.rank is None else f", rank={self.rank}"
        return f"{self.in_features}, {self.out_features}, n={self.n}{rank}"
