"""Semantic segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peft_dense.tasks.registry import register
from peft_dense.tasks.segmentation import Segmentation

__all__ = ["SemSeg"]


@register
@dataclass(frozen=True, kw_only=True)
class SemSeg(Segmentation):
    """Classify every pixel by what it shows; by default PASCAL VOC's 20 classes and background.

    Shape:
        prediction ``(B, channels, H, W)`` logits; target ``(B, H, W)`` classes, 255 ignored

    Example:
        >>> SemSeg().classes[15], SemSeg(channels=59).classes[15]
        ('person', 'class 15')
    """

    class_names: ClassVar[tuple[str, ...]] = (
        "background",
        *("aeroplane", "bicycle", "bird", "boat", "bottle"),
        *("bus", "car", "cat", "chair", "cow"),
        *("diningtable", "dog", "horse", "motorbike", "person"),
        *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
    )

    name: str = "semseg"
    channels: int = 21
