"""Depth: how far away every pixel is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks.base import Task
from peft_dense.tasks.drawing import ramp
from peft_dense.tasks.meter import Meter
from peft_dense.tasks.registry import register, serves_kind

__all__ = ["Depth", "DepthMeter"]


@register
@serves_kind
@dataclass(frozen=True, kw_only=True)
class Depth(Task):
    """Give every pixel its distance, in the unit of the labels.

    The loss is the L1 distance, a mean over valid pixels. A target pixel is valid unless it is 0 or
    not finite.

    Args:
        far: The depth painted in the last colour of pictures.

    Shape:
        prediction ``(B, 1, H, W)``; target ``(B, 1, H, W)`` or ``(B, H, W)`` floats

    Raises:
        HyperparameterError: If ``far`` isn't positive.

    Example:
        >>> Depth().loss(torch.full((1, 1, 1, 2), 2.0), torch.tensor([[[2.5, 0.0]]]))
        tensor(0.5000)
    """

    kind: ClassVar[str] = "depth"
    metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False
    fixed_channels: ClassVar[int | None] = 1

    name: str = "depth"
    channels: int = 1
    far: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.far > 0:
            raise HyperparameterError(
                f"task {self.name} got far={self.far}; expected a positive depth."
            )

    def read(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give depths as ``(B, H, W)``; those that aren't valid become zero."""
        flat = target.squeeze(1) if target.ndim == 4 else target
        if flat.ndim != 3 or not target.is_floating_point():
            raise ShapeError(
                f"a {self.name} target has shape (B, 1, H, W) or (B, H, W) and a floating-point "
                f"dtype; got {tuple(target.shape)} of {target.dtype}. Convert with .float()."
            )
        valid = (flat != 0) & flat.isfinite()
        return torch.where(valid, flat.float(), 0.0), valid

    def check_values(self, target: Tensor) -> None:
        """Raise if a depth is negative."""
        flat, _ = self.read(target)
        if (flat < 0).any():
            raise ShapeError(
                f"a {self.name} target holds {flat.min().item():g}; expected positive depths, or 0 "
                "where ignored. Set what has no depth to 0."
            )

    def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Give each pixel's absolute error."""
        return (prediction[:, 0] - target).abs()

    def meter(self) -> DepthMeter:
        """Make a meter of ``rmse``, ``abs_rel`` and ``delta_*``."""
        return DepthMeter(self)

    def decide(self, prediction: Tensor) -> Tensor:
        """Drop the channel axis."""
        return prediction[:, 0]

    def paint(self, label: Tensor) -> Tensor:
        """Paint depths from 0, dark blue, to ``far``, yellow."""
        return ramp(label / self.far)


class DepthMeter(Meter):
    """Score depths p against truths t over all valid pixels.

    ``rmse``: root of the mean of (p - t)^2, in the unit of the labels; ``abs_rel``: mean of
    abs(p - t) / t; ``delta_1.25``, ``delta_1.25^2``, ``delta_1.25^3``: share of pixels with
    max(p / t, t / p) below 1.25, its square and its cube, in percent.
    """

    limits: ClassVar[dict[str, float]] = {
        "delta_1.25": 1.25,
        "delta_1.25^2": 1.25**2,
        "delta_1.25^3": 1.25**3,
    }

    def zeros(self) -> dict[str, Tensor]:
        """Give sums of errors, and counts."""
        return {
            "square": torch.zeros((), dtype=torch.float64),
            "relative": torch.zeros((), dtype=torch.float64),
            "near": torch.zeros(len(self.limits), dtype=torch.int64),
            "pixels": torch.zeros((), dtype=torch.int64),
        }

    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Sum the errors of valid pixels."""
        found = prediction[:, 0]
        error = torch.where(valid, found - target, 0.0)
        near = [
            (valid & (found < limit * target) & (target < limit * found)).sum()
            for limit in self.limits.values()
        ]
        return {
            "square": error.square().sum(),
            "relative": (error.abs() / torch.where(valid, target, 1.0)).sum(),
            "near": torch.stack(near),
            "pixels": valid.sum(),
        }

    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give ``rmse``, ``abs_rel``, and ``delta_*`` in percent."""
        pixels = state["pixels"]
        near = (100 * state["near"] / pixels).tolist()
        return {
            "rmse": (state["square"] / pixels).sqrt().item(),
            "abs_rel": (state["relative"] / pixels).item(),
            **dict(zip(self.limits, near, strict=True)),
        }
