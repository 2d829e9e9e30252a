"""From raw maps to label maps at an image's own size, a few rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from peft_dense.tasks import Task

__all__ = ["decide_at"]

_VALUES = 1 << 22
"""How many raw values are held at the image's size at once: 16 MB."""


def decide_at(task: Task, raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample raw maps to a size, bilinear, and decide on each pixel's label.

    It equals ``task.decide(F.interpolate(raw, size, mode="bilinear"))``, as in scoring at native
    sizes. But for 150 classes at 12 megapixels that holds 7 GB, this 16 MB.

    Args:
        task: The task.
        raw: Its head's output for one image.
        size: Height and width.

    Shape:
        ``(channels, H, W) ->`` ``size`` for classes (uint8; int32 where there are more than 256)
        and, as float32, for probabilities and depths; ``(3, *size)`` for normals. On the CPU.

    Example:
        >>> from peft_dense.tasks import task
        >>> decide_at(task("depth"), torch.tensor([[[1.0, 3.0]]]), (1, 4))
        tensor([[1.0000, 1.5000, 2.5000, 3.0000]])
    """
    channels, height, width = raw.shape
    upper, lower, down = _between(height, size[0], raw.device)
    step = max(1, _VALUES // (channels * max(size[1], width)))
    parts = []
    for start in range(0, size[0], step):
        rows = slice(start, start + step)
        strip = torch.lerp(raw[:, upper[rows]], raw[:, lower[rows]], down[rows, None])
        # Its rows are those wanted, so only the width changes; faster than gathering columns.
        wide = (strip.shape[-2], size[1])
        strip = F.interpolate(strip[None], wide, mode="bilinear", align_corners=False)
        parts.append(_small(task.decide(strip)[0], task).cpu())
    return torch.cat(parts, dim=-2)


def _between(length: int, wanted: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Give each wanted pixel's two neighbours, and its distance from the first."""
    centres = torch.arange(wanted, device=device, dtype=torch.float32)
    centres = ((centres + 0.5) * (length / wanted) - 0.5).clamp(0, length - 1)
    first = centres.floor().long()
    return first, (first + 1).clamp(max=length - 1), centres - first


def _small(label: Tensor, task: Task) -> Tensor:
    if label.is_floating_point():
        return label
    return label.to(torch.uint8 if task.channels <= 256 else torch.int32)
