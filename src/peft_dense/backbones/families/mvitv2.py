"""timm's MViTv2 indexes its relative positions as if the image had the size it was built for.

Here each attention's forward sees its two tables through a view that resamples them to the size at
hand. (On the meta device an index out of range goes unnoticed, so the probe can't see this.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from timm.models.mvitv2 import MultiScaleAttention, MultiScaleVit
from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family

__all__ = ["any_size_mvitv2"]


class _Table:
    """A table of relative positions that is read at any size, by an index (queries, keys)."""

    def __init__(self, table: Tensor) -> None:
        self.table = table

    def __getitem__(self, index: Tensor) -> Tensor:
        length = 2 * max(index.shape) - 1
        table = self.table
        if table.shape[0] != length:
            table = F.interpolate(table.mT[None], size=length, mode="linear")[0].mT
        return table[index]


class _View:
    """An attention as its own forward sees it: all its attributes, and any-size tables."""

    def __init__(self, attention: nn.Module) -> None:
        self.attention = attention

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.attention, name)
        return _Table(found) if name in ("rel_pos_h", "rel_pos_w") else found


class _Attention(MultiScaleAttention):
    """timm's MViTv2 attention at any size."""

    def forward(self, x: Tensor, feat_size: Sequence[int]) -> tuple[Tensor, Sequence[int]]:
        """Run timm's forward on a view of this module."""
        view: Any = _View(self)
        out: tuple[Tensor, Sequence[int]] = MultiScaleAttention.forward(view, x, list(feat_size))
        return out


def any_size_mvitv2(model: nn.Module) -> None:
    """Let every MViTv2 attention of a clone take any size."""
    for module in model.modules():
        if type(module) is MultiScaleAttention:
            module.__class__ = _Attention


register_family(MultiScaleVit, Family(flexible=any_size_mvitv2))
