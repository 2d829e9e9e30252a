"""Surface normals: which way every pixel's surface faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from peft_dense.errors import ShapeError
from peft_dense.tasks.base import Task
from peft_dense.tasks.kinds import IGNORE
from peft_dense.tasks.meter import Meter
from peft_dense.tasks.registry import register, serves_kind

__all__ = ["Normals", "NormalsMeter"]


@register
@serves_kind
@dataclass(frozen=True, kw_only=True)
class Normals(Task):
    """Give every pixel the direction its surface faces.

    The loss is the L1 distance between the prediction, scaled to unit length, and the target, a
    mean over valid pixels and channels. A target pixel is valid unless it is 255 on all channels,
    zero (no direction) or not finite.

    Shape:
        prediction ``(B, 3, H, W)`` of any length; target ``(B, 3, H, W)`` floats in -1..1

    Example:
        >>> up = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]
        >>> Normals().loss(5 * up, up)
        tensor(0.)
    """

    kind: ClassVar[str] = "normals"
    metric: ClassVar[str] = "mErr"
    higher_is_better: ClassVar[bool] = False
    fixed_channels: ClassVar[int | None] = 3

    name: str = "normals"
    channels: int = 3

    def read(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Scale the valid directions to unit length; the others become zero."""
        if target.ndim != 4 or target.shape[1] != 3 or not target.is_floating_point():
            raise ShapeError(
                f"a {self.name} target has shape (B, 3, H, W) and a floating-point dtype; got "
                f"{tuple(target.shape)} of {target.dtype}. Move the channels to axis 1; decode "
                "bytes v by 2 v / 255 - 1."
            )
        valid = (target != IGNORE).any(1) & (target != 0).any(1) & target.isfinite().all(1)
        return _unit(torch.where(valid[:, None], target.float(), 0.0)), valid

    def check_values(self, target: Tensor) -> None:
        """Raise if a component is beyond -1..1."""
        _, valid = self.read(target)
        target = torch.where(valid[:, None], target.float(), 0.0)
        largest = target.abs().max().item() if target.numel() else 0.0
        if largest > 1.01:  # rounding of a stored unit vector stays below
            raise ShapeError(
                f"a {self.name} target holds {largest:g}; expected components in -1..1, or "
                f"{IGNORE} on all three channels where ignored. Decode bytes v by 2 v / 255 - 1."
            )

    def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Give each pixel's L1 distance of unit vectors, a mean over channels."""
        # The bound keeps the gradient at a zero prediction from 1 / 1e-12, PyTorch's default.
        return (_unit(prediction, 1e-6) - target).abs().mean(1)

    def meter(self) -> NormalsMeter:
        """Make a meter of ``mErr``, ``rmse`` and ``within_*``."""
        return NormalsMeter(self)

    def votes(self, prediction: Tensor) -> Tensor:
        """Scale predictions to unit length, so that a long one doesn't outweigh others."""
        return _unit(prediction)

    def decide(self, prediction: Tensor) -> Tensor:
        """Scale predictions to unit length."""
        return _unit(prediction)

    def paint(self, label: Tensor) -> Tensor:
        """Paint x, y, z as red, green, blue: ``255 (n + 1) / 2``."""
        colour = (label.nan_to_num(0.0).clamp(-1, 1) + 1) / 2 * 255
        return colour.round().to(torch.uint8).movedim(0, -1)


def _unit(directions: Tensor, least: float = 1e-12) -> Tensor:
    """Divide directions ``(B, 3, H, W)`` by their length, or by ``least`` where it is less.

    What ``F.normalize(directions, dim=1)`` does, whose norm over an outer axis is the dearest
    operation of a training step on a CPU.
    """
    wide = directions.float() if directions.element_size() < 4 else directions  # halves overflow
    squares = (wide * wide).sum(1, keepdim=True)
    return (wide * squares.clamp_min(least**2).rsqrt()).to(directions.dtype)


class NormalsMeter(Meter):
    """Score directions by the angle between prediction and truth, over all valid pixels.

    ``mErr``: the mean angle in degrees; ``rmse``: the root of its mean square, which some published
    columns of that name are not; ``within_11.25``, ``within_22.5``, ``within_30``: the share of
    pixels with a smaller angle, in percent.
    """

    limits: ClassVar[tuple[float, ...]] = (11.25, 22.5, 30.0)

    def zeros(self) -> dict[str, Tensor]:
        """Give sums of angles and of their squares, and counts."""
        return {
            "angle": torch.zeros((), dtype=torch.float64),
            "square": torch.zeros((), dtype=torch.float64),
            "within": torch.zeros(len(self.limits), dtype=torch.int64),
            "pixels": torch.zeros((), dtype=torch.int64),
        }

    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Sum angles; the arc tangent is exact where the arc cosine loses small ones."""
        found = _unit(prediction)
        across = torch.linalg.cross(found, target, dim=1).norm(dim=1)
        angle = torch.atan2(across, (found * target).sum(1)).rad2deg().masked_fill(~valid, 0)
        return {
            "angle": angle.sum(),
            "square": angle.square().sum(),
            "within": torch.stack([(valid & (angle < limit)).sum() for limit in self.limits]),
            "pixels": valid.sum(),
        }

    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give ``mErr`` and ``rmse`` in degrees, ``within_*`` in percent."""
        pixels = state["pixels"]
        within = (100 * state["within"] / pixels).tolist()
        return {
            "mErr": (state["angle"] / pixels).item(),
            "rmse": (state["square"] / pixels).sqrt().item(),
            **{
                f"within_{limit:g}": share for limit, share in zip(self.limits, within, strict=True)
            },
        }
