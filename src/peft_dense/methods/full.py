"""Full fine-tuning: a backbone per task, or one for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from peft_dense.backbones import BackboneInfo, own
from peft_dense.methods.base import Method, register

__all__ = ["MultitaskFull", "SingleTaskFull"]


@register
@dataclass(frozen=True, kw_only=True)
class SingleTaskFull(Method):
    """Trains a whole backbone of its own for every task: the reference of both papers' Delta."""

    name: ClassVar[str] = "single_task_full"
    paper: ClassVar[str] = "Polyhistor, section 5.2"
    one_path: ClassVar[bool] = False

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Give the path trainable copies of all it uses."""
        own(path, info.parameters)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Fold nothing: the path is a plain backbone already."""

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """The backbone without classifier and final norm, one copy per path."""
        return info.size * self.passes(tasks)


@register
@dataclass(frozen=True, kw_only=True)
class MultitaskFull(SingleTaskFull):
    """Trains one whole backbone for all tasks together."""

    name: ClassVar[str] = "multitask_full"
    one_path: ClassVar[bool] = True
