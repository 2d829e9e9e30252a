"""Edges: which pixels are borders of things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from peft_dense.errors import HyperparameterError
from peft_dense.tasks.binary import Binary, balanced_cross_entropy, best_f, count_above
from peft_dense.tasks.meter import Meter
from peft_dense.tasks.registry import register, serves_kind

__all__ = ["Edge", "EdgeMeter"]


@register
@serves_kind
@dataclass(frozen=True, kw_only=True)
class Edge(Binary):
    """Mark the pixels on borders, with a cross-entropy that gives the few edge pixels more weight.

    Args:
        positive_weight: Weight of edge pixels; the others weigh ``1 - positive_weight``. 0.95 is
            the custom on PASCAL-Context.

    Shape:
        prediction ``(B, 1, H, W)`` logits; target ``(B, H, W)`` 0 or 1, 255 ignored

    Raises:
        HyperparameterError: If the weight isn't between 0 and 1.

    Example:
        >>> Edge().loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[1, 255]]]))
        tensor(0.6585)
    """

    kind: ClassVar[str] = "edge"
    metric: ClassVar[str] = "F"

    name: str = "edge"
    positive_weight: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.positive_weight < 1:
            raise HyperparameterError(
                f"task {self.name} got positive_weight={self.positive_weight}; expected a share "
                "between 0 and 1, such as 0.95."
            )

    def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Give each pixel's weighted cross-entropy."""
        return balanced_cross_entropy(prediction[:, 0], target, self.positive_weight)

    def meter(self) -> EdgeMeter:
        """Make a meter of ``F``."""
        return EdgeMeter(self)


class EdgeMeter(Meter):
    """Score edges by their F-measure, pixel against pixel.

    ``F``: F1 over all pixels of the data set at the best of the thresholds 0.01, 0.02 ... 0.99. NaN
    if no pixel is an edge.

    This is *not* odsF: it has neither thinning nor a tolerance, so an edge one pixel aside is
    wrong. Values are far lower than, and not comparable with, published odsF, which
    :class:`~peft_dense.tasks.BoundaryMeter` gives.
    """

    thresholds: ClassVar[Tensor] = torch.arange(1, 100) / 100

    def zeros(self) -> dict[str, Tensor]:
        """Give counts by true label and threshold."""
        return {"above": torch.zeros((2, 1 + len(self.thresholds)), dtype=torch.int64)}

    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Count pixels above each threshold."""
        return {"above": count_above(prediction, target, valid, self.thresholds).sum(0)}

    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give ``F`` in percent."""
        return {"F": best_f(state["above"], 1.0)}
