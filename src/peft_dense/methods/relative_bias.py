"""Relative bias: train what gives attention its relative positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peft_dense.backbones import BackboneInfo
from peft_dense.methods.base import register
from peft_dense.methods.bitfit import BitFit

__all__ = ["RelativeBias", "SharedRelativeBias"]


@register
@dataclass(frozen=True, kw_only=True)
class RelativeBias(BitFit):
    """Trains the relative-position tables of the attentions, one copy per task.

    Liu et al. 2021; Polyhistor, table 1. Swin has a table, SwinV2 a small perceptron (all of it
    trains), MViTv2 one table per axis, TinyViT and LeViT one bias per offset.

    Raises:
        NoSiteError: The backbone has no relative positions (PVTv2, Hiera, Twins, ConvNeXt).
    """

    name: ClassVar[str] = "relative_bias"
    paper: ClassVar[str] = "Liu et al. 2021; Polyhistor, section 5.2"
    _what: ClassVar[str] = "relative-position parameters"

    def _trains(self, name: str, info: BackboneInfo) -> bool:
        return any(part in info.family.positions for part in name.split("."))


@register
@dataclass(frozen=True, kw_only=True)
class SharedRelativeBias(RelativeBias):
    """Trains one copy of the tables for all tasks, in one pass (VMT-Adapter, table 2)."""

    name: ClassVar[str] = "shared_relative_bias"
    paper: ClassVar[str] = "Liu et al. 2021; VMT-Adapter, section 5.2"
    one_path: ClassVar[bool] = True
