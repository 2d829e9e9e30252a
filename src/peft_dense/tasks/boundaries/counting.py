"""Counts of matched edge pixels at every threshold of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peft_dense.errors import ShapeError
from peft_dense.tasks.boundaries.matching import PixelMatcher
from peft_dense.tasks.boundaries.suppression import non_maximum_suppression
from peft_dense.tasks.boundaries.thinning import thin as thinned

__all__ = ["boundary_counts"]


def boundary_counts(
    probability: NDArray[np.floating[Any]],
    truths: Sequence[NDArray[np.bool_]],
    valid: NDArray[np.bool_] | None = None,
    *,
    tolerance: float = 0.0075,
    thresholds: int = 99,
    thin: bool = True,
    thin_truth: bool = True,
    nms: bool = True,
) -> NDArray[np.int64]:
    r"""Count matched and all edge pixels of a prediction and its truths, threshold by threshold.

    At threshold t = 1 / (K + 1) ... K / (K + 1) the prediction is where the probability is at least
    t. Its pixels and those of a truth are paired one to one, as many as can be, at a distance of at
    most ``tolerance`` times the image's diagonal.

    With several truths (annotators), a predicted pixel is a hit if it is paired in any of them.
    Matchings of the most pairs differ in which pixels they pair; here they are such that the most
    pixels are hits. (One matching of all truths together at once finds their number, since sets of
    pixels that can be paired are the independent sets of a matroid.) BSDS takes those of its
    cheapest assignments, so its precision may be lower. With one truth there is no such choice.

    Args:
        probability: The prediction, 0 to 1; NaN is taken for 0.
        truths: True edges.
        valid: Where to look. Elsewhere the probability is set to 0 first, and true edges are
            dropped; the diagonal is still the whole image's.
        tolerance: The largest distance, as a share of the diagonal.
        thresholds: How many, K.
        thin: Whether to thin the prediction at each threshold.
        thin_truth: Whether to thin the truths.
        nms: Whether to do :func:`non_maximum_suppression` first.

    Shape:
        ``(H, W), N x (H, W), (H, W) -> (4, K)``: at each threshold the predicted pixels that are
        hits, all predicted pixels, the true pixels that are paired, all true pixels

    Raises:
        ShapeError: If there is no truth, or the maps' sizes differ.

    Example:
        >>> truth, guess = np.zeros((4, 9), dtype=bool), np.zeros((4, 9))
        >>> truth[1, :6], guess[2] = True, 0.6  # a pixel aside, and too long
        >>> boundary_counts(guess, [truth], tolerance=0.12, thresholds=3, nms=False)
        array([[6, 6, 0],
               [9, 9, 0],
               [6, 6, 0],
               [6, 6, 6]])
    """
    valid = np.ones(probability.shape, dtype=bool) if valid is None else valid
    sizes = [each.shape for each in (probability, valid, *truths)]
    if len(truths) == 0 or len(set(sizes)) > 1 or probability.ndim != 2:
        raise ShapeError(
            f"got maps of sizes {', '.join(map(str, sizes))} (probability, valid pixels, truths); "
            "expected at least one truth, and all of one (height, width)."
        )
    probability = np.where(valid, np.nan_to_num(probability), 0.0)
    if nms:
        probability = non_maximum_suppression(probability)
    truths = [truth.astype(bool) & valid for truth in truths]
    if thin_truth:
        truths = [thinned(truth) for truth in truths]
    radius = tolerance * math.hypot(*probability.shape)
    matchers = [PixelMatcher([truth], radius) for truth in truths]
    any_truth = matchers[0] if len(truths) == 1 else PixelMatcher(truths, radius)
    true = sum(int(truth.sum()) for truth in truths)

    # How many thresholds each pixel reaches; where none is reached last, the map stays as it was.
    levels = np.arange(1, thresholds + 1) / (thresholds + 1)
    reached = np.searchsorted(levels, probability, side="right")
    last = np.bincount(reached.reshape(-1), minlength=thresholds + 1)
    counts = np.zeros((4, thresholds), dtype=np.int64)
    for k in range(thresholds):
        if k > 0 and last[k] == 0:
            counts[:, k] = counts[:, k - 1]
            continue
        marks = reached > k
        marks = thinned(marks) if thin else marks
        hits = any_truth.count(marks)
        paired = hits if len(truths) == 1 else sum(each.count(marks) for each in matchers)
        counts[:, k] = hits, marks.sum(), paired, true
    return counts
