"""Segmentation of the human body into parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peft_dense.tasks.registry import register
from peft_dense.tasks.segmentation import Segmentation

__all__ = ["HumanParts"]


@register
@dataclass(frozen=True, kw_only=True)
class HumanParts(Segmentation):
    """Classify every pixel by body part; by default PASCAL-Context's six and background.

    An image without people is 255 everywhere: it neither trains nor scores.

    Shape:
        prediction ``(B, channels, H, W)`` logits; target ``(B, H, W)`` parts, 255 ignored

    Example:
        >>> HumanParts().classes[1]
        'head'
    """

    class_names: ClassVar[tuple[str, ...]] = (
        "background",
        "head",
        "torso",
        "upper arm",
        "lower arm",
        "upper leg",
        "lower leg",
    )

    name: str = "human_parts"
    channels: int = 7
