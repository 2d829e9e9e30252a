"""What a dense task is: what its files say, and the rules that hold for all of them.

A task file says what is its own: how a label is read, the criterion on valid pixels, the meter, and
how a prediction becomes a label and a label a picture. The rules that hold for every task stand
here once: shapes are checked before use, a batch without any label costs exactly nothing, and truth
and prediction are drawn alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks.drawing import IGNORED_COLOUR
from peft_dense.tasks.meter import Meter

__all__ = ["IGNORE", "Task"]

IGNORE = 255
"""The label value of a pixel that neither trains nor scores (depth uses 0)."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Turn dense predictions and labels into a loss, a score and pictures.

    Args:
        channels: Channels of the prediction.

    Attributes:
        name: The name it is registered by.
        metric: Key of the primary metric in what its meter computes.
        higher_is_better: Whether that metric grows as predictions get better.
        fixed_channels: The only number of channels that makes sense, if there is one.

    Raises:
        HyperparameterError: If ``channels`` isn't possible for the task.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    fixed_channels: ClassVar[int | None] = None

    channels: int

    def __post_init__(self) -> None:
        fixed = self.fixed_channels
        if not (0 < self.channels <= IGNORE if fixed is None else self.channels == fixed):
            expected = (
                f"1 to {IGNORE}, as {IGNORE} marks ignored pixels" if fixed is None else fixed
            )
            raise HyperparameterError(
                f"task {self.name} got channels={self.channels}; expected {expected}."
            )

    def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Reduce a batch to the scalar that training minimises, a mean over valid pixels.

        Where no pixel of the batch is valid the loss is exactly zero; it still depends on
        ``prediction``, whose gradient is then zero.

        Args:
            prediction: What the head gives out, at the size of the target.
            target: The labels, as the task's class describes them.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> ()``

        Raises:
            ShapeError: If shapes or dtypes don't fit, or a label value can't be.
        """
        target, valid = self.check(prediction, target)
        if not valid.any():
            return prediction[:0].float().sum()  # of nothing: zero even if a prediction is NaN
        return self.criterion(prediction.float(), target, valid)

    def check(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Read ``target`` and raise unless ``prediction`` fits it.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> (B, ..., H, W), (B, H, W)``: the labels in one
            form, and which pixels are valid

        Raises:
            ShapeError: If shapes or dtypes don't fit, or a label value can't be.
        """
        label, valid = self.read(target)
        batch, height, width = valid.shape
        expected = (batch, self.channels, height, width)
        if prediction.shape != expected or not prediction.is_floating_point():
            raise ShapeError(
                f"task {self.name} with a target of shape {tuple(target.shape)} needs a "
                f"floating-point prediction (B, channels, H, W) = {expected}; got "
                f"{tuple(prediction.shape)} of {prediction.dtype}. Interpolate the prediction to "
                "the target's size, or build head and task with the same channels."
            )
        return label, valid

    def draw_target(self, target: Tensor) -> Tensor:
        """Paint the label of one sample; ignored pixels get the colour of ignored pixels.

        Shape:
            ``(..., H, W) -> (H, W, 3)`` uint8 on the CPU

        Raises:
            ShapeError: If it isn't the label of one sample.
        """
        label, valid = self.read(target.detach().cpu()[None])
        return torch.where(valid[0, ..., None], self.paint(label[0]), IGNORED_COLOUR)

    def draw_prediction(self, prediction: Tensor) -> Tensor:
        """Paint the prediction of one sample, in the colours of its truth.

        Shape:
            ``(channels, H, W) -> (H, W, 3)`` uint8 on the CPU

        Raises:
            ShapeError: If it isn't the prediction of one sample.
        """
        if prediction.ndim != 3 or prediction.shape[0] != self.channels:
            raise ShapeError(
                f"task {self.name} draws one prediction ({self.channels}, H, W) at a time; got "
                f"{tuple(prediction.shape)}. Take one sample of the batch."
            )
        return self.paint(self.decide(prediction.detach().float().cpu()[None])[0])

    @abstractmethod
    def read(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Check labels; give them in one form, and where they are valid ``(B, H, W)``."""

    @abstractmethod
    def criterion(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Reduce checked float predictions and labels, some of them valid, to the loss."""

    @abstractmethod
    def meter(self) -> Meter:
        """Make an empty meter of the task's metrics."""

    @abstractmethod
    def decide(self, prediction: Tensor) -> Tensor:
        """Turn ``(B, channels, H, W)`` predictions into what labels look like."""

    @abstractmethod
    def paint(self, label: Tensor) -> Tensor:
        """Turn one label, read or decided, into ``(H, W, 3)`` uint8 colours."""
