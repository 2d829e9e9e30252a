"""AdaptFormer: a narrow scaled bottleneck beside every MLP, shared by all tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from peft_dense.backbones import Site
from peft_dense.errors import HyperparameterError
from peft_dense.methods.adapter import Adapter
from peft_dense.methods.base import register
from peft_dense.nn import Bottleneck
from peft_dense.nn.checks import check_share

__all__ = ["AdaptFormer"]


@register
@dataclass(frozen=True, kw_only=True)
class AdaptFormer(Adapter):
    """Adds ``0.1 up(relu(down(x)))`` beside every MLP, with one width at every stage, in one pass.

    Chen et al. 2022. A single-task method of plain ViTs; here all tasks share it.

    Checked against the official code (ShoufaChen/AdaptFormer): equation, factor, no LayerNorm, both
    biases at zero, ``up`` at zero, ``down`` as ``nn.Linear`` draws it, dropout in the bottleneck.
    Two things differ, as a general backbone has no place for them: there the branch reads the
    stream before the MLP's LayerNorm, here the MLP's input, which a pre-norm backbone has
    normalised; and there it is added after the MLP's drop path, here before, so an MLP and its
    branch are dropped together.

    Args:
        width: Width of the bottleneck; it takes the place of ``ratio``.
        dropout: Share of the bottleneck that is dropped while training.
    """

    name: ClassVar[str] = "adaptformer"
    paper: ClassVar[str] = "Chen et al. 2022 (AdaptFormer), section 3.2"
    one_path: ClassVar[bool] = True

    ratio: int = 1
    width: int = 64
    norm: Literal["in", "out"] | None = None
    scale: float = 0.1
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        check_share("dropout", self.dropout)
        if self.ratio != 1:
            raise HyperparameterError(
                "adaptformer has one width at every stage: set width=..., or use shared_adapter."
            )

    def _branch(self, site: Site, linear: Callable[[int, int], nn.Module]) -> Bottleneck:
        branch = super()._branch(site, linear)
        branch.dropout = self.dropout
        assert isinstance(branch.down, nn.Linear)
        nn.init.zeros_(branch.down.bias)
        return branch

    def _width(self, site: Site) -> int:
        return self.width
