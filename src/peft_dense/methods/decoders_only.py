"""Nothing in the encoder: only the heads train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from peft_dense.backbones import BackboneInfo
from peft_dense.methods.base import Method, register

__all__ = ["DecodersOnly"]


@register
@dataclass(frozen=True, kw_only=True)
class DecodersOnly(Method):
    """Leaves the frozen backbone as it is: "Fine-tuning Decoders" of both papers' tables."""

    name: ClassVar[str] = "decoders_only"
    paper: ClassVar[str] = "Polyhistor, section 5.2"
    one_path: ClassVar[bool] = True

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Add nothing."""

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Fold nothing: the path is the backbone."""

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """0."""
        return 0
