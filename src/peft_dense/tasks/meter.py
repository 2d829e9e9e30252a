"""The base of all meters: sums over batches and processes, and the metrics they give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from peft_dense.errors import DataError

__all__ = ["Measured", "Meter", "histogram"]


class Measured(Protocol):
    """What a meter needs of the task it measures."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def channels(self) -> int:
        """Channels of a prediction."""

    def check(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give labels in one form, and which pixels are valid; raise if they don't fit."""


class Meter(ABC):
    """Sum what metrics need over batches and processes.

    It is used as a metric of ``torchmetrics`` is: ``update``, ``compute``, ``reset``. All it knows
    is in ``state``: tensors, each a sum over batches. So meters merge, and processes score a data
    set together, by adding states. The tensors are where the predictions are, so that the host
    needn't wait for the device before :meth:`compute`. Scores that are shares are in percent;
    errors have the unit of the label. Where nothing has been seen, scores are NaN.

    A meter of your own says what an empty state is (:meth:`zeros`), what a batch adds to it
    (:meth:`count`) and which metrics it gives (:meth:`score`).

    Args:
        task: The task that checks predictions and labels.

    Shape:
        predictions ``(B, channels, H, W)``; labels ``(B, ..., H, W)``

    Raises:
        ShapeError: :meth:`update` is given what doesn't fit the task.

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
        >>> meter(logits, torch.tensor([[[0, 1, 1]]]))  # of this batch
        {'mIoU': 100.0}
        >>> meter.compute()  # of both
        {'mIoU': 70.83333333333333}
    """

    state: dict[str, Tensor]

    def __init__(self, task: Measured) -> None:
        self.task = task
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self.state = self.zeros()

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> ()``

        Raises:
            ShapeError: If shapes or dtypes don't fit, or a label value isn't allowed.
        """
        self._add(self._of(prediction, target))

    def forward(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Add a batch, and give the metrics of this batch alone, in this process.

        Shape:
            ``(B, channels, H, W), (B, ..., H, W) -> {}``

        Raises:
            ShapeError: If shapes or dtypes don't fit, or a label value isn't allowed.
        """
        batch = self._of(prediction, target)
        self._add(batch)
        return self.score(batch)

    def __call__(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Run :meth:`forward`."""
        return self.forward(prediction, target)

    def merge_state(self, other: Meter) -> None:
        """Add what another meter of the same task and settings has seen.

        Raises:
            DataError: If it measures something else.
        """
        # All but the sums: the task with its classes, a tolerance ...
        mine, theirs = ({**vars(each), "state": None} for each in (self, other))
        if type(self) is not type(other) or mine != theirs:
            differ = [name for name in mine if mine[name] != theirs.get(name)] or ["class"]
            raise DataError(
                f"a {type(self).__name__} of {self.task.name} can't take in a "
                f"{type(other).__name__} of {other.task.name} that differs in "
                f"{', '.join(differ)}. Make both by the same task's meter()."
            )
        self._add(other.state)

    def compute(self, *, sync: bool = True) -> dict[str, float]:
        """Give the metrics of all batches so far.

        Where ``torch.distributed`` runs, batches of all processes count, and every process must
        call it; each gets the same metrics, and keeps its own state.

        Args:
            sync: Whether to include the other processes.
        """
        return self.score(_summed(self.state) if sync else self.state)

    @abstractmethod
    def zeros(self) -> dict[str, Tensor]:
        """Give the state of an empty meter: int64 counts and float64 sums."""

    @abstractmethod
    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Give what a batch adds to the state."""

    @abstractmethod
    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give the metrics of a state."""

    @torch.no_grad()
    def _of(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Give the state that a batch alone would make, in the types of :meth:`zeros`."""
        label, valid = self.task.check(prediction, target)
        counts = self.count(prediction.float(), label, valid)
        return {name: _as(counts[name], zero.dtype) for name, zero in self.zeros().items()}

    def _add(self, state: Mapping[str, Tensor]) -> None:
        for name, value in state.items():
            mine = self.state[name]
            # The first batch takes the empty state along; later ones come to it.
            moved = mine.to(value.device) if mine.device.type == "cpu" else mine
            self.state[name] = moved + value.to(moved.device)


def histogram(index: Tensor, valid: Tensor, size: int) -> Tensor:
    """Count how often each index occurs where ``valid``; the host doesn't wait for the device.

    Args:
        index: Whole numbers, 0 to ``size - 1`` where valid.
        valid: Which of them count.
        size: How many there can be.

    Shape:
        ``(...), (...) -> (size,)`` int64

    Example:
        >>> histogram(torch.tensor([2, 0, 2, 9]), torch.tensor([True, True, True, False]), 3)
        tensor([1, 0, 2])
    """
    counts = torch.zeros(size, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, torch.where(valid, index, 0).flatten(), valid.flatten().long())


def _as(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert; where the device has no float64, as Apple's, on the CPU."""
    if dtype == torch.float64 and value.device.type == "mps":
        value = value.cpu()
    return value.to(dtype)


def _summed(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Sum a state over all processes, if there are several."""
    if not (dist.is_available() and dist.is_initialized()):
        return state
    device = _device(dist.get_backend_config())
    total = {name: value.to(device, copy=True) for name, value in state.items()}
    for value in total.values():
        dist.all_reduce(value)
    return {name: value.cpu() for name, value in total.items()}


def _device(backends: str) -> torch.device:
    """Pick where tensors must be to be sent: the CPU if it can, as gloo's, else as NCCL's.

    Example:
        >>> _device("cpu:gloo,cuda:gloo"), _device("cuda:nccl")
        (device(type='cpu'), device(type='cuda'))
    """
    kinds = [each.split(":")[0] for each in backends.split(",")]
    return torch.device("cpu" if "cpu" in kinds else kinds[0])
