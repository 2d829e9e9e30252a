"""What a meter is: sums over batches, and the metrics they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from peft_dense.tasks.base import Task

__all__ = ["Meter"]


class Meter(ABC):
    """Sum what metrics need over batches.

    All it knows is in ``state``, plain tensors on the CPU, each the sum of its batches: two meters
    merge by adding their states. Scores that are shares are in percent; errors have the unit of
    the label. Where nothing has been seen, scores are NaN.

    Args:
        task: The task that checks predictions and labels.

    Example:
        >>> from peft_dense.tasks import task
        >>> semseg = task("semseg", channels=2)
        >>> meter = semseg.meter()
        >>> meter.compute()
        {'mIoU': nan}
        >>> logits = torch.tensor([[9.0, 0.0, 0.0], [0.0, 9.0, 9.0]])[None, :, None]
        >>> meter.update(logits, torch.tensor([[[0, 0, 1]]]))
        >>> meter.compute()
        {'mIoU': 50.0}
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self.state = self.zeros()

    @torch.no_grad()
    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> ()``

        Raises:
            ShapeError: If shapes or dtypes don't fit, or a label value can't be.
        """
        target, valid = self.task.check(prediction, target)
        for name, value in self.count(prediction.float(), target, valid).items():
            self.state[name] += value.to(self.state[name])

    @abstractmethod
    def zeros(self) -> dict[str, Tensor]:
        """Give the state of an empty meter: int64 counts and float64 sums."""

    @abstractmethod
    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Give what a batch adds to the state."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Give the metrics of all batches so far."""
