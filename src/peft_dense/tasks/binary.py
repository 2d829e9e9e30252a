"""Tasks that mark pixels: balanced cross-entropy, and counts over thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from peft_dense.tasks.base import Task
from peft_dense.tasks.drawing import grey
from peft_dense.tasks.meter import Meter, histogram
from peft_dense.tasks.registry import serves_kind
from peft_dense.tasks.segmentation import check_classes, read_classes

__all__ = ["Binary", "MarkMeter", "balanced_cross_entropy", "best_f", "count_above"]


@serves_kind
@dataclass(frozen=True, kw_only=True)
class Binary(Task):
    """Mark pixels: ``(B, 1, H, W)`` logits against ``(B, H, W)`` of 0 and 1, 255 ignored.

    The loss is the cross-entropy, a mean over valid pixels.

    Example:
        >>> roofs = Binary(name="roofs")
        >>> roofs.loss(torch.zeros(1, 1, 1, 3), torch.tensor([[[1, 0, 255]]]))
        tensor(0.6931)
    """

    kind: ClassVar[str] = "binary"
    metric: ClassVar[str] = "IoU"
    fixed_channels: ClassVar[int | None] = 1

    channels: int = 1

    def read(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Give marks as int64; the pixels that aren't 255 are valid."""
        return read_classes(target, self.name)

    def check_values(self, target: Tensor) -> None:
        """Raise if a mark is neither 0, 1 nor 255."""
        check_classes(target, 2, self.name)

    def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Give each pixel's cross-entropy."""
        return 2 * balanced_cross_entropy(prediction[:, 0], target, 0.5)

    def meter(self) -> Meter:
        """Make a meter of ``IoU``, ``F``, ``precision`` and ``recall``."""
        return MarkMeter(self)

    def decide(self, prediction: Tensor) -> Tensor:
        """Give each pixel its probability of being marked."""
        return prediction[:, 0].sigmoid()

    def paint(self, label: Tensor) -> Tensor:
        """Paint probabilities or marks from black to white."""
        return grey(label)


class MarkMeter(Meter):
    """Score marks over all valid pixels of the data set, marked where the probability exceeds 0.5.

    ``IoU``: intersection over union of the marked pixels; ``F``: their F1; ``precision`` and
    ``recall``. All in percent, and NaN if no pixel is truly marked.
    """

    def zeros(self) -> dict[str, Tensor]:
        """Give counts by true label: all pixels, and the marked ones."""
        return {"above": torch.zeros((2, 2), dtype=torch.int64)}

    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Count marked pixels."""
        half = torch.tensor([0.5])
        return {"above": count_above(prediction, target, valid, half).sum(0)}

    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give the shares in percent."""
        (_, false), (true, hits) = state["above"].tolist()
        found = hits + false
        if not true:
            return dict.fromkeys(("IoU", "F", "precision", "recall"), float("nan"))
        return {
            "IoU": 100 * hits / (true + false),
            "F": 100 * 2 * hits / (true + found),
            "precision": 100 * hits / found if found else 0.0,
            "recall": 100 * hits / true,
        }


def balanced_cross_entropy(
    logits: Tensor, marks: Tensor, positive_weight: Tensor | float
) -> Tensor:
    r"""Turn logits and marks into weighted binary cross-entropies.

    .. math:: -w\, y_i \log p_i - (1 - w)(1 - y_i) \log(1 - p_i),
        \quad p = \sigma(\mathrm{logits})

    (class-balanced cross-entropy; Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015,
    equation 2, a pixel's term).

    Args:
        logits: Logits.
        marks: Their labels, 0 or 1.
        positive_weight: Weight w of the marked pixels, 0 to 1.

    Shape:
        ``(...), (...) -> (...)``

    Example:
        >>> balanced_cross_entropy(torch.zeros(2), torch.tensor([1, 0]), 0.75)
        tensor([0.5199, 0.1733])
    """
    marks = marks.to(logits.dtype)
    weight = marks * positive_weight + (1 - marks) * (1 - positive_weight)
    return F.binary_cross_entropy_with_logits(logits, marks, weight, reduction="none")


def count_above(prediction: Tensor, target: Tensor, valid: Tensor, thresholds: Tensor) -> Tensor:
    """Count, by image and true label, the valid pixels whose probability exceeds each threshold.

    One histogram over the intervals between thresholds, summed from above, serves them all.

    Args:
        prediction: Logits.
        target: Marks, 0 or 1 where valid.
        valid: Which pixels count.
        thresholds: Probabilities, rising.

    Shape:
        ``(B, 1, H, W), (B, H, W), (B, H, W), (K,) -> (B, 2, 1 + K)``: label 0, then label 1; all
        pixels, then those above each threshold

    Example:
        >>> logits = torch.tensor([[[[-3.0, 0.0, 3.0]]]])
        >>> every = torch.ones(1, 1, 3, dtype=torch.bool)
        >>> count_above(logits, every.long(), every, torch.tensor([0.3, 0.7]))[0, 1].tolist()
        [3, 2, 1]
    """
    bins = len(thresholds) + 1
    level = torch.bucketize(prediction[:, 0].sigmoid(), thresholds.to(prediction))
    image = torch.arange(len(target), device=target.device)[:, None, None]
    place = (image * 2 + target) * bins + level
    counts = histogram(place, valid, len(target) * 2 * bins)
    counts = rearrange(counts, "(image label level) -> image label level", label=2, level=bins)
    return counts.flip(-1).cumsum(-1).flip(-1)


def best_f(above: Tensor, beta_squared: float) -> float:
    r"""Give the best F-measure over thresholds, in percent, from the counts of :func:`count_above`.

    .. math:: F_\beta = \frac{(1 + \beta^2)\, P R}{\beta^2 P + R}
        = \frac{(1 + \beta^2)\, TP}{\beta^2 (TP + FN) + TP + FP}

    Args:
        above: Counts, summed over images.
        beta_squared: Weight of recall against precision.

    Shape:
        ``(2, 1 + K) -> ()``; NaN where no pixel is truly marked

    Example:
        >>> best_f(torch.tensor([[6, 6, 0], [2, 2, 1]]), 1.0)  # 2 of 8 hit, or 1 of 1
        66.66666666666666
    """
    negatives, positives = above.double()
    if positives[0] == 0:
        return float("nan")
    hits, false = positives[1:], negatives[1:]
    scores = (1 + beta_squared) * hits / (beta_squared * positives[0] + hits + false)
    return 100 * float(scores.max())
