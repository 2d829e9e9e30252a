"""The base of all tasks.

A task says how a label is read, what each pixel costs, which meter scores it, and how a prediction
becomes a label and a label a picture. The rules that hold for every task stand here once: shapes
are checked before use, ignored pixels cost exactly nothing, the parts of a batch make up its loss,
and truth and prediction are drawn alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks.drawing import IGNORED_COLOUR
from peft_dense.tasks.kinds import IGNORE, IGNORE_MANY, LabelKind, kind
from peft_dense.tasks.meter import Meter

__all__ = ["IGNORE", "Task"]


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Turn dense predictions and labels into a loss, a score and pictures.

    Args:
        name: Name of the task; a registered one has a default.
        channels: Channels of the prediction.

    Attributes:
        kind: What kind of labels it has, one of `peft_dense.tasks.kinds.KINDS`.
        metric: Key of the primary metric in what its meter computes.
        higher_is_better: Whether that metric grows as predictions get better.
        fixed_channels: The only number of channels that makes sense, if there is one.

    Shape:
        predictions ``(B, channels, H, W)``; labels ``(B, H, W)``, of normals and depth
        ``(B, C, H, W)``

    Raises:
        HyperparameterError: If ``channels`` isn't possible for the task, or it has no name.

    Example:
        >>> import torch
        >>> from peft_dense.tasks import task
        >>> semseg = task("semseg", channels=2)
        >>> semseg.loss(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64))
        tensor(0.6931)
    """

    kind: ClassVar[str] = "segmentation"
    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    fixed_channels: ClassVar[int | None] = None

    name: str = ""
    channels: int

    def __post_init__(self) -> None:
        if not self.name:
            raise HyperparameterError(
                f"a task of kind {self.kind} has no name; pass name=..., or make it by "
                f"task('some name', kind={self.kind!r})."
            )
        fixed = self.fixed_channels
        whole = isinstance(self.channels, Integral) and not isinstance(self.channels, bool)
        fits = whole and (
            0 < self.channels <= IGNORE_MANY if fixed is None else self.channels == fixed
        )
        if not fits:
            expected = (
                f"1 to {IGNORE_MANY}, as {IGNORE_MANY} marks ignored pixels"
                if fixed is None
                else fixed
            )
            raise HyperparameterError(
                f"task {self.name} got channels={self.channels!r}; expected {expected}."
            )

    @property
    def labels(self) -> LabelKind:
        """What its labels look like."""
        return kind(self.kind, self.channels)

    def loss(self, prediction: Tensor, target: Tensor, counts: Tensor | None = None) -> Tensor:
        """Reduce a batch to the scalar that training minimises, a mean over valid pixels.

        Where no pixel of the batch is valid the loss is exactly zero; it still depends on
        ``prediction``, whose gradient is then zero.

        A large batch can come in parts, one after another or in several processes. The mean of the
        parts' means isn't the mean of the batch, as one part may hold fewer valid pixels than
        another. Given the whole batch's ``counts``, the loss is the part's share of the batch's
        mean: the losses of all parts add up to the loss of the batch, and so do their gradients.
        (``DistributedDataParallel`` averages gradients, so multiply by the number of processes.)

        :meth:`counts` has looked at every value of the labels. Given its result, the loss looks at
        shapes only, so that the host never waits for the device.

        Args:
            prediction: The head's output, at the size of the target.
            target: The labels, as the task's class describes them.
            counts: The sum of :meth:`counts` over all parts of the batch that this is a part of;
                by default this is the whole batch.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> ()``

        Raises:
            ShapeError: If shapes or dtypes don't fit, ``counts`` aren't given and a label value
                isn't allowed, ``counts`` are less than this part's own (compared on the CPU only),
                or the task's criterion reduces.

        Example:
            >>> from peft_dense.tasks import task
            >>> depth = task("depth")
            >>> made, label = torch.zeros(2, 1, 1, 2), torch.tensor([[[1.0, 3.0]], [[5.0, 0.0]]])
            >>> depth.loss(made, label)
            tensor(3.)
            >>> counts = sum(depth.counts(part) for part in label.split(1))
            >>> [depth.loss(made[i : i + 1], label[i : i + 1], counts).item() for i in (0, 1)]
            [1.3333333730697632, 1.6666666269302368]
        """
        if counts is None:
            self.check_values(target)
        target, valid = self._read_for(prediction, target)
        own = self.tally(target, valid)
        if counts is not None:
            counts = counts.to(own.device, non_blocking=True)
            comparable = own.device.type == "cpu"  # elsewhere the host would wait
            if counts.shape != own.shape or (comparable and bool((counts < own).any())):
                raise ShapeError(
                    f"task {self.name} got counts={counts.tolist()}; expected at least this part's "
                    f"own, {own.tolist()}. Pass the sum of counts(target) over all parts."
                )
        counts = own if counts is None else counts
        # Predictions at ignored pixels may be NaN; that must reach neither loss nor gradient.
        made = prediction.masked_fill(~valid[:, None], 0).float()
        costs = self.criterion(made, target, counts)
        if costs.shape != valid.shape:
            raise ShapeError(
                f"the criterion of task {self.name} gave {tuple(costs.shape)}; expected the cost "
                f"of each pixel, {tuple(valid.shape)}. Leave the mean to loss()."
            )
        return costs.masked_fill(~valid, 0).sum() / counts[0].clamp(min=1)

    def counts(self, target: Tensor) -> Tensor:
        """Count what the loss of a batch divides by; the counts of its parts add up to its own.

        The first is the number of valid pixels. A task whose criterion needs more of the whole
        batch has more, as its class says.

        Args:
            target: The labels, as the task's class describes them.

        Shape:
            ``(B, ..., H, W) -> (K,)`` int64, on the target's device

        Raises:
            ShapeError: If its shape or dtype doesn't fit, or a label value isn't allowed.
        """
        self.check_values(target)
        return self.tally(*self.read(target))

    def tally(self, target: Tensor, valid: Tensor) -> Tensor:
        """Give :meth:`counts` of labels that :meth:`read` gave."""
        return valid.sum()[None]

    def check(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Read ``target`` and raise unless ``prediction`` fits it.

        Values are looked at where the target is, which then goes to the prediction's device. So the
        host waits for no device if the target comes from the CPU.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> (B, ..., H, W), (B, H, W)``: the labels in one
            form, and which pixels are valid

        Raises:
            ShapeError: If shapes or dtypes don't fit, or a label value isn't allowed.
        """
        self.check_values(target)
        return self._read_for(prediction, target)

    def _read_for(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        label, valid = self.read(target.to(prediction.device, non_blocking=True))
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
        target = target.detach().cpu()[None]
        self.check_values(target)
        label, valid = self.read(target)
        return torch.where(valid[0, ..., None], self.paint(label[0]), IGNORED_COLOUR)

    def draw_prediction(self, prediction: Tensor) -> Tensor:
        """Paint the prediction of one sample, in the colours of its label.

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
        """Give labels in one form, and where they are valid ``(B, H, W)``.

        It checks shape and dtype and doesn't look at values, so that no host waits for a device.
        """

    def check_values(self, target: Tensor) -> None:
        """Raise if labels of the right shape and dtype hold a value that isn't allowed.

        Raises:
            ShapeError: If they do; or shape or dtype don't fit.
        """
        self.read(target)

    @abstractmethod
    def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Give each pixel's cost ``(B, H, W)``, from float predictions and labels as read.

        ``prediction`` is zero where the label isn't valid, and the cost there counts for nothing.
        ``counts`` are those of the whole batch.
        """

    @abstractmethod
    def meter(self) -> Meter:
        """Make an empty meter of the task's metrics."""

    def votes(self, prediction: Tensor) -> Tensor:
        """Give predictions in a form whose mean over several views is a prediction.

        Shape:
            ``(B, channels, H, W) -> (B, channels, H, W)``
        """
        return prediction

    @abstractmethod
    def decide(self, prediction: Tensor) -> Tensor:
        """Turn ``(B, channels, H, W)`` predictions into what labels look like."""

    @abstractmethod
    def paint(self, label: Tensor) -> Tensor:
        """Turn one label, read or decided, into ``(H, W, 3)`` uint8 colours."""
