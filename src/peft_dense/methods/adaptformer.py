"""AdaptFormer: a narrow scaled bottleneck beside every MLP, shared by all tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from peft_dense.backbones import Site
from peft_dense.errors import HyperparameterError
from peft_dense.methods.adapter import Adapter
from peft_dense.methods.base import register

__all__ = ["AdaptFormer"]


@register
@dataclass(frozen=True, kw_only=True)
class AdaptFormer(Adapter):
    """Adds ``0.1 up(relu(down(x)))`` beside every MLP, with one width at every stage, in one pass.

    Chen et al. 2022. A single-task method of plain ViTs; here all tasks share it. Its branch reads
    the stream before the MLP's LayerNorm; this one reads the MLP's input, which a pre-norm backbone
    has normalised. Its dropout of 0.1 is left out.

    Args:
        width: Width of the bottleneck; it takes the place of ``ratio``.
    """

    name: ClassVar[str] = "adaptformer"
    paper: ClassVar[str] = "Chen et al. 2022 (AdaptFormer), section 3.2"
    one_path: ClassVar[bool] = True

    ratio: int = 1
    width: int = 64
    norm: Literal["in", "out"] | None = None
    scale: float = 0.1

    def __post_init__(self) -> None:
        """Check what needs no backbone to be checked."""
        super().__post_init__()
        if self.ratio != 1:
            raise HyperparameterError(
                "adaptformer has one width at every stage: set width=..., or use shared_adapter."
            )
        if self.width < 1:
            raise HyperparameterError(f"width={self.width!r} must be a whole number from 1 up.")

    def _width(self, site: Site) -> int:
        return self.width
