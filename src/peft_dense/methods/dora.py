"""DoRA: low-rank updates of direction, and magnitudes, shared by all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peft_dense.backbones import BackboneInfo
from peft_dense.errors import HyperparameterError
from peft_dense.methods.base import register
from peft_dense.methods.lora import LoRA
from peft_dense.nn import DoRALinear, LowRankLinear

__all__ = ["DoRA"]


@register
@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    """Turns chosen linears' weights by a low-rank update and scales their rows, in one pass.

    Liu et al. 2024. A single-task method of language models; here all tasks share it.

    Args:
        rank: Rank of the update.
        alpha: The update is scaled by ``alpha / rank``.
    """

    name: ClassVar[str] = "dora"
    paper: ClassVar[str] = "Liu et al. 2024 (DoRA), equation 5"
    one_path: ClassVar[bool] = True
    layer: ClassVar[type[LowRankLinear]] = DoRALinear

    rank: int = 16
    alpha: float = 16.0
    targets: tuple[str, ...] = ("qkv", "proj", "fc1", "fc2")

    def __post_init__(self) -> None:
        """Refuse what DoRA hasn't."""
        super().__post_init__()
        if self.norm:
            raise HyperparameterError("dora has no norm on its input; use shared_lora, norm=True.")

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``sum (r (in + out) + out)``."""
        rows = sum(linear.out_features for linear in info.linears(self.targets))
        return super().count(info, tasks) + rows * self.passes(tasks)
