"""Low-rank adapters: bottlenecks whose projections are products of two thin matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import nn

from peft_dense.methods.adapter import Adapter
from peft_dense.methods.base import register
from peft_dense.nn import LowRank

__all__ = ["LowRankAdapter", "SharedLowRankAdapter"]


@register
@dataclass(frozen=True, kw_only=True)
class LowRankAdapter(Adapter):
    """Adds adapters whose projections have low rank, ``W = P Q``, one set per task.

    Sung et al. 2022 (VL-Adapter); "Low-rank adapter" in Polyhistor (table 1).

    Args:
        ratio: Down-projection ratio rho.
        rank: Rank of both projections; None takes ``max(1, floor(n / 4))``.
    """

    name: ClassVar[str] = "low_rank_adapter"
    paper: ClassVar[str] = "Sung et al. 2022; Polyhistor, section 5.2"

    ratio: int = 16
    rank: int | None = None

    def _linear(
        self, n: int, tasks: Sequence[str], shared: nn.Module | None
    ) -> Callable[[int, int], nn.Module]:
        return partial(LowRank, rank=self._rank(n))

    def _projections(self, d: int, n: int) -> int:
        """Count ``2 r (d + n)``."""
        return 2 * self._rank(n) * (d + n)

    def _rank(self, n: int) -> int:
        return max(1, n // 4) if self.rank is None else self.rank


@register
@dataclass(frozen=True, kw_only=True)
class SharedLowRankAdapter(LowRankAdapter):
    """Adds one set of low-rank adapters for all tasks, in one pass (VMT-Adapter, table 2)."""

    name: ClassVar[str] = "shared_low_rank_adapter"
    paper: ClassVar[str] = "Sung et al. 2022; VMT-Adapter, section 5.2"
    one_path: ClassVar[bool] = True
