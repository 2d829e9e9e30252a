"""Random numbers of transforms, and the checks of what they are drawn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peft_dense.errors import HyperparameterError

__all__ = ["between", "checked_probability", "checked_size", "corner"]


def between(low: float, high: float) -> float:
    """Draw a number, by torch's generator."""
    return low + (high - low) * torch.rand(()).item()


def corner(given: Sequence[int], wanted: Sequence[int], drawn: Sequence[float]) -> list[int]:
    """Place a window in the image, or the image in a larger window (negative), by numbers < 1.

    Example:
        >>> corner((10, 4), (6, 6), (0.99, 0.5))
        [4, -1]
    """
    place = []
    for had, want, at in zip(given, wanted, drawn, strict=True):
        slack = had - want
        place.append(int(at * (abs(slack) + 1)) * (1 if slack > 0 else -1))
    return place


def checked_probability(p: float) -> float:
    """Give a probability.

    Raises:
        HyperparameterError: If it isn't one.
    """
    if not 0 <= p <= 1:
        raise HyperparameterError(f"p is a probability; got {p}, expected 0 to 1.")
    return p


def checked_size(size: Sequence[int]) -> tuple[int, int]:
    """Give a height and a width.

    Raises:
        HyperparameterError: If they aren't two positive integers.
    """
    pair = isinstance(size, Sequence) and len(size) == 2
    if not pair or any(int(side) != side or side < 1 for side in size):
        raise HyperparameterError(f"size={size}: expected (height, width), positive integers.")
    return int(size[0]), int(size[1])
