"""Saliency: which pixels belong to what catches the eye."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from peft_dense.tasks.binary import Binary, balanced_cross_entropy, best_f, count_above
from peft_dense.tasks.meter import Meter
from peft_dense.tasks.registry import register

__all__ = ["Sal", "SaliencyMeter"]


@register
@dataclass(frozen=True, kw_only=True)
class Sal(Binary):
    """Mark the salient pixels.

    The loss is the balanced cross-entropy whose weight of salient pixels is the share of the other
    ones among the batch's valid pixels. A batch with one kind only has nothing to balance: its loss
    is zero. So its :meth:`counts` are two: valid pixels, and the salient ones of them.

    Shape:
        prediction ``(B, 1, H, W)`` logits; target ``(B, H, W)`` 0 or 1, 255 ignored

    Example:
        >>> Sal().loss(torch.zeros(1, 1, 1, 4), torch.tensor([[[1, 0, 0, 255]]]))
        tensor(0.3081)
    """

    metric: ClassVar[str] = "mIoU"

    name: str = "sal"

    def tally(self, target: Tensor, valid: Tensor) -> Tensor:
        """Count valid pixels, and the salient ones of them."""
        return torch.stack([valid.sum(), (target == 1).sum()])

    def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """Give each pixel's balanced cross-entropy."""
        pixels, salient = counts
        return balanced_cross_entropy(prediction[:, 0], target, 1 - salient / pixels.clamp(min=1))

    def meter(self) -> SaliencyMeter:
        """Make a meter of ``mIoU`` and ``maxF``."""
        return SaliencyMeter(self)


class SaliencyMeter(Meter):
    """Score saliency by both conventions of the field, which differ by some 20 points.

    ``mIoU``: the foreground's intersection over union in each image, averaged over images, at the
    best of the thresholds 0.2, 0.25 ... 0.9. It is 1 for an image without foreground in truth and
    prediction. Images without a valid pixel don't count. NaN if no pixel of all is salient: there
    was no foreground to find, and 100 would say that it was found.

    ``maxF``: the F-measure with beta^2 = 0.3 over all pixels of the data set, at the best of the
    thresholds 0, 1/255 ... 254/255. NaN if no pixel is salient.
    """

    coarse: ClassVar[Tensor] = torch.linspace(0.2, 0.9, 15)
    fine: ClassVar[Tensor] = torch.arange(255) / 255

    def zeros(self) -> dict[str, Tensor]:
        """Give sums of IoU by threshold, the number of images, and counts by fine threshold."""
        return {
            "iou": torch.zeros(len(self.coarse), dtype=torch.float64),
            "images": torch.zeros((), dtype=torch.int64),
            "above": torch.zeros((2, 1 + len(self.fine)), dtype=torch.int64),
        }

    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Sum the images' IoU, and count pixels above each threshold."""
        seen = valid.flatten(1).any(1)
        negatives, positives = count_above(prediction, target, valid, self.coarse).unbind(1)
        union = positives[:, :1] + negatives[:, 1:]
        iou = torch.where(union > 0, positives[:, 1:] / union.clamp(min=1), 1.0)
        return {
            "iou": (iou * seen[:, None]).sum(0),
            "images": seen.sum(),
            "above": count_above(prediction, target, valid, self.fine).sum(0),
        }

    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give ``mIoU`` and ``maxF`` in percent."""
        iou = 100 * (state["iou"] / state["images"]).max().item()
        salient = int(state["above"][1, 0])
        return {
            "mIoU": iou if salient else float("nan"),
            "maxF": best_f(state["above"], 0.3),
        }
