"""Thinning of probability maps along their gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["non_maximum_suppression"]


def non_maximum_suppression(
    probability: NDArray[np.floating[Any]],
    *,
    radius: int = 1,
    border: int = 5,
    multiplier: float = 1.01,
    smoothing: int = 4,
) -> NDArray[np.float64]:
    r"""Set to zero every probability that has a stronger one beside it, across the line it is on.

    Across is the direction

    .. math:: o = \arctan \frac{-\mathrm{sign}(S_{xy})\, S_{yy}}{S_{xx} + 10^{-5}}

    of the second derivatives of S, the map smoothed by a triangle. A pixel is kept if, times the
    multiplier, it is at least as strong as the interpolated map at the distances 1 to ``radius`` on
    both sides. Then the outermost pixels fade to zero at the border, where second derivatives are
    poor. (The rule of ``edgesNms`` of Structured Edge Detection; Dollar and Zitnick, "Fast Edge
    Detection Using Structured Forests", TPAMI 2015. Its ``sign`` is 0 where S_xy is exactly 0, as
    beside lines drawn along an axis by computer, which leaves those thick; ours is 1.)

    Args:
        probability: The map.
        radius: How far to look, r.
        border: How many pixels fade along each border, s; at most half of the map.
        multiplier: What probabilities are multiplied by before they are compared, m: above 1,
            both pixels of a ridge two pixels wide stay.
        smoothing: Half the width of the triangle.

    Shape:
        ``(H, W) -> (H, W)``

    Example:
        >>> ridge = np.tile([0.0, 0.2, 0.6, 0.9, 0.5, 0.1, 0.0], (5, 1))
        >>> non_maximum_suppression(ridge, border=0)[2]
        array([0. , 0. , 0. , 0.9, 0. , 0. , 0. ])
    """
    strength = np.asarray(probability, dtype=np.float64)
    direction = _across(strength, smoothing)
    down, right = np.sin(direction), np.cos(direction)
    beside = np.full_like(strength, -math.inf)
    for step in range(1, radius + 1):
        for way in (-step, step):
            beside = np.fmax(beside, _interpolate(strength, way * down, way * right))
    kept = np.where(multiplier * strength < beside, 0.0, strength)
    return kept * _fade(strength.shape, border)


def _across(strength: NDArray[np.float64], smoothing: int) -> NDArray[np.float64]:
    """Give the direction across lines in radians, 0 along x and pi / 2 along y."""
    from scipy.ndimage import correlate1d

    triangle = smoothing + 1.0 - np.abs(np.arange(-smoothing, smoothing + 1))
    triangle /= triangle.sum()
    smooth = strength
    for axis in (0, 1):
        smooth = correlate1d(smooth, triangle, axis=axis, mode="reflect")
    by_y, by_x = _slope(smooth, 0), _slope(smooth, 1)
    by_yy, by_xy, by_xx = _slope(by_y, 0), _slope(by_x, 0), _slope(by_x, 1)
    return np.asarray(np.arctan(np.where(by_xy > 0, -by_yy, by_yy) / (by_xx + 1e-5)))


def _slope(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Give central differences, one-sided at borders; a single row or column is flat."""
    if values.shape[axis] == 1:
        return np.zeros_like(values)
    return np.asarray(np.gradient(values, axis=axis))


def _interpolate(
    values: NDArray[np.float64], down: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give the value that lies so far down and right of each pixel; borders go on for ever."""
    height, width = values.shape
    y = np.clip(np.arange(height)[:, None] + down, 0, height - 1)
    x = np.clip(np.arange(width) + right, 0, width - 1)
    top, left = y.astype(np.intp), x.astype(np.intp)
    bottom, far = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    y, x = y - top, x - left
    above = values[top, left] * (1 - x) + values[top, far] * x
    below = values[bottom, left] * (1 - x) + values[bottom, far] * x
    return np.asarray(above * (1 - y) + below * y)


def _fade(shape: tuple[int, ...], border: int) -> NDArray[np.float64]:
    """Give factors that rise from 0 on the outermost pixels to 1 at ``border`` pixels inside."""
    border = min(border, *(side // 2 for side in shape))
    if border == 0:
        return np.ones(shape)
    rows, columns = (
        np.minimum(np.minimum(np.arange(side), np.arange(side)[::-1]) / border, 1.0)
        for side in shape
    )
    return rows[:, None] * columns
