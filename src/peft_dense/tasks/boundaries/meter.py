"""The meter of the boundary benchmark: odsF, oisF, AP and R50."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peft_dense.errors import HyperparameterError
from peft_dense.tasks.base import Task
from peft_dense.tasks.boundaries.counting import boundary_counts
from peft_dense.tasks.meter import Meter

__all__ = ["BoundaryMeter"]


class BoundaryMeter(Meter):
    r"""Score edges as the BSDS benchmark does: thinned, and matched within a tolerance.

    A predicted pixel is right if it can be paired, one to one, with a true pixel not further away
    than the tolerance. Precision is the share of predicted pixels in pairs, recall that of true
    pixels, F their harmonic mean, all over the sums of the data set:

    - ``odsF``: F at the best threshold for the data set ("optimal dataset scale").
    - ``oisF``: F with each image's counts taken at the threshold best for it ("optimal image
      scale"). An image where nothing is right at any threshold adds those of the highest.
    - ``AP``: precision over recall, interpolated at recalls 0, 0.01 ... 1, summed and divided by
      100; recalls that no threshold reaches add nothing.
    - ``R50``: recall where precision is 50 %, interpolated (where it is least, if it is always
      above); NaN if precision never gets there.
    - ``odsT``: the threshold of ``odsF``, 0 to 1.

    All but ``odsT`` are in percent; all are NaN if there is no true edge.

    The rules are those of ``edgesEvalImg`` and ``edgesEvalDir`` of the Structured Edge Detection
    toolbox (Dollar and Zitnick, TPAMI 2015) and of SEISM (Pont-Tuset and Marques, CVPR 2013), where
    published odsF on PASCAL-Context and NYUD come from. They were compared with the C++ sources of
    ``edgesNms`` and ``correspondPixels``, not with MATLAB. Numbers may differ from MATLAB's in
    these points:

    - Size: published numbers are taken at the images' native size. Thinning and suppression act in
      pixels, so numbers at other sizes aren't comparable.
    - Rounding: MATLAB reads predictions from 8-bit images; these are logits. Rounding the
      probabilities to 1/255 moved odsF by up to 0.3 points on noisy made-up maps.
    - Suppression: the C++ sources keep the same pixels, given the same directions. Directions are
      the toolbox's except beside lines along an axis (see
      :func:`~peft_dense.tasks.boundaries.non_maximum_suppression`), and in double precision, not
      single. Some benchmarks smooth the prediction before it; SEISM and this meter don't.
    - Thinning: the algorithm that MATLAB documents for ``bwmorph``, as scikit-image has it.
      ``edgesEvalImg`` leaves truths as they are; SEISM thins them, as here.
    - Matching: the most pairs there are. The C++ sources miss up to 0.4 % of them (see
      :class:`~peft_dense.tasks.boundaries.PixelMatcher`), so their F is lower by at most that share
      of itself.
    - ``odsF``: the best of the thresholds, as in SEISM. ``edgesEvalDir`` also looks between
      neighbouring ones, which added less than a thousandth of a point.
    - ``oisF``: where nothing is right, theirs take the lowest threshold, with the most errors.
    - ``AP``: thresholds without a prediction have precision 0 (``edgesEvalDir``), not 1 (SEISM).
    - Ignored pixels: they have none.

    Args:
        task: The task that checks logits and labels: an edge task.
        tolerance: Largest distance in a pair, as a share of the image's diagonal: 0.0075 is the
            custom on PASCAL-Context and BSDS500, 0.011 on NYUD.
        thresholds: How many, K: 1 / (K + 1) ... K / (K + 1).
        thin: Whether to thin the prediction at each threshold.
        thin_truth: Whether to thin the truth.
        nms: Whether to suppress first what isn't a maximum across the edge. It also fades the
            outermost five pixels of the prediction.

    Shape:
        predictions ``(B, 1, H, W)``; labels ``(B, H, W)`` or ``(B, 1, H, W)``

    Raises:
        HyperparameterError: If the tolerance isn't a share, or there is no threshold.

    Example:
        >>> from peft_dense.tasks import task
        >>> meter = BoundaryMeter(task("edge"), tolerance=0.1, nms=False)
        >>> truth = torch.zeros(1, 12, 12, dtype=torch.long)
        >>> truth[:, 5] = 1
        >>> logits = torch.full((1, 1, 12, 12), -9.0)
        >>> logits[:, :, 6] = 9.0  # a pixel aside
        >>> meter.update(logits, truth)
        >>> meter.compute()["odsF"]
        100.0
    """

    def __init__(
        self,
        task: Task,
        tolerance: float = 0.0075,
        thresholds: int = 99,
        thin: bool = True,
        nms: bool = True,
        thin_truth: bool = True,
    ) -> None:
        if not 0 <= tolerance < 1 or thresholds < 1:
            raise HyperparameterError(
                f"BoundaryMeter got tolerance={tolerance}, thresholds={thresholds}; expected a "
                "share of the diagonal from 0 to below 1, such as 0.0075, and at least one "
                "threshold."
            )
        self.tolerance = tolerance
        self.thresholds = thresholds
        self.thin = thin
        self.nms = nms
        self.thin_truth = thin_truth
        super().__init__(task)

    def zeros(self) -> dict[str, Tensor]:
        """Give empty counts: of :func:`boundary_counts`, and each image's at its best threshold."""
        return {
            "curve": torch.zeros((4, self.thresholds), dtype=torch.int64),
            "best": torch.zeros(4, dtype=torch.int64),
        }

    def count(self, prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Match the edges of each image."""
        state = self.zeros()
        probabilities = prediction[:, 0].sigmoid().cpu().numpy()
        truths, where = (target == 1).cpu().numpy(), valid.cpu().numpy()
        for probability, truth, known in zip(probabilities, truths, where, strict=True):
            counts = boundary_counts(
                probability,
                [truth],
                known,
                tolerance=self.tolerance,
                thresholds=self.thresholds,
                thin=self.thin,
                thin_truth=self.thin_truth,
                nms=self.nms,
            )
            scores = _f(counts)
            best = int(scores.argmax()) if scores.any() else -1
            state["curve"] += torch.from_numpy(counts)
            state["best"] += torch.from_numpy(counts[:, best])
        return state

    def score(self, state: Mapping[str, Tensor]) -> dict[str, float]:
        """Give ``odsF``, ``oisF``, ``AP`` and ``R50`` in percent, and ``odsT``."""
        curve, best = state["curve"].cpu().numpy(), state["best"].cpu().numpy()
        if curve[3, 0] == 0:
            return dict.fromkeys(("odsF", "oisF", "AP", "R50", "odsT"), float("nan"))
        scores = _f(curve)
        precision, recall = _shares(curve)
        return {
            "odsF": 100 * float(scores.max()),
            "oisF": 100 * float(_f(best)),
            "AP": 100 * _average_precision(precision, recall),
            "R50": 100 * _recall_at_half(precision, recall),
            "odsT": (int(scores.argmax()) + 1) / (self.thresholds + 1),
        }


def _shares(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give precision and recall; 0 of 0 is 0."""
    return counts[0] / np.maximum(counts[1], 1), counts[2] / np.maximum(counts[3], 1)


def _f(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give F; 0 where nothing is right."""
    precision, recall = _shares(counts)
    either = precision + recall
    return np.asarray(2 * precision * recall / np.where(either > 0, either, 1.0))


def _average_precision(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Reduce a curve to its average precision."""
    rising, first = np.unique(recall, return_index=True)  # of equal recalls the lowest threshold
    if len(rising) == 1:
        return 0.0  # no curve
    at = np.interp(np.arange(101) / 100, rising, precision[first], left=0.0, right=0.0)
    return float(at.sum() / 100)


def _recall_at_half(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Reduce a curve to its recall at precision 0.5."""
    _, lowest = np.unique(recall, return_index=True)
    precision, recall = precision[lowest][::-1], recall[lowest][::-1]
    rising, first = np.unique(precision, return_index=True)  # of equal ones the highest recall
    return float(np.interp(0.5, rising, recall[first], right=np.nan))
