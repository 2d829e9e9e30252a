"""LoRA on chosen linears, one set per task or one set for all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from peft_dense.backbones import BackboneInfo, fold, replace
from peft_dense.errors import HyperparameterError, UnsupportedModelError
from peft_dense.methods.base import Method, register
from peft_dense.nn import LowRankLinear
from peft_dense.nn.checks import check_choice

__all__ = ["LoRA", "SharedLoRA"]


@register
@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """Adds ``alpha / rank * x A B`` to chosen linears, a pair of factors per task.

    Hu et al. 2022; "LoRA" in Polyhistor (table 1), rank 4 with output scale 4 on the attention's
    fused qkv.

    Args:
        rank: Rank of the update, r.
        alpha: The update is scaled by ``alpha / rank``.
        targets: Any of ``qkv``, ``proj``, ``fc1``, ``fc2``. Where a backbone keeps queries, keys
            and values apart, ``qkv`` means all of them.
        norm: A LayerNorm on the update's input, as the papers' parameter count implies. Such an
            update can't be merged.

    Raises:
        HyperparameterError: ``rank`` exceeds a linear's width, or ``norm`` is asked for where the
            backbone only reads a linear's weight.
        NoSiteError: The backbone has no linear in one of the roles.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "Hu et al. 2022; Polyhistor, section 5.2"
    one_path: ClassVar[bool] = False
    layer: ClassVar[type[LowRankLinear]] = LowRankLinear

    rank: int = 4
    alpha: float = 16.0
    targets: tuple[str, ...] = ("qkv",)
    norm: bool = False

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        object.__setattr__(self, "targets", targets)
        if not targets:
            raise HyperparameterError(
                "targets is empty; choose any of 'qkv', 'proj', 'fc1', 'fc2'."
            )
        for target in targets:
            check_choice("targets", target, ("qkv", "proj", "fc1", "fc2"))

    def resolve(self, info: BackboneInfo) -> LoRA:
        """Check that every linear can take the update."""
        for linear in info.linears(self.targets):
            if self.norm and not linear.called:
                raise HyperparameterError(
                    f"norm=True can't act on {linear.name!r}: {info.model} reads its weight "
                    f"instead of calling it. Use norm=False, or leave {linear.role!r} out of "
                    "targets."
                )
        return self

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Wrap every chosen linear."""
        for linear in info.linears(self.targets):
            base = path.get_submodule(linear.name)
            layer = self.layer(base, self.rank, alpha=self.alpha, norm=self.norm)  # type: ignore[arg-type]
            replace(path, linear.name, layer)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Write ``W + alpha / rank * B A`` where W was."""
        if self.norm:
            raise UnsupportedModelError(
                f"{self.name} with norm=True can't be merged: its update passes a LayerNorm."
            )
        for linear in info.linears(self.targets):
            layer = path.get_submodule(linear.name)
            assert isinstance(layer, LowRankLinear)
            fold(layer.base, "weight", layer.merged_weight())
            replace(path, linear.name, layer.base)

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T sum (r (in + out) [+ 2 in])``, once where the tasks share the factors."""
        total = 0
        for linear in info.linears(self.targets):
            total += self.rank * (linear.in_features + linear.out_features)
            total += 2 * linear.in_features if self.norm else 0
        return total * self.passes(tasks)


@register
@dataclass(frozen=True, kw_only=True)
class SharedLoRA(LoRA):
    """Adds one low-rank update that all tasks share, in one pass: VMT-Adapter's "Shared LoRA"."""

    name: ClassVar[str] = "shared_lora"
    paper: ClassVar[str] = "Hu et al. 2022; VMT-Adapter, section 5.2"
    one_path: ClassVar[bool] = True
