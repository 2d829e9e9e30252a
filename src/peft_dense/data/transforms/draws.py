"""Random numbers of transforms, and checks of their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real

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


def checked_size(size: Sequence[int], name: str = "size") -> tuple[int, int]:
    """Give a height and a width.

    Raises:
        HyperparameterError: If they aren't two positive integers.
    """
    sides = tuple(size) if isinstance(size, Iterable) else ()
    if len(sides) != 2 or not all(map(_is_side, sides)):
        raise HyperparameterError(
            f"{name}={size!r}: expected (height, width), positive integers, such as (448, 448)."
        )
    return int(sides[0]), int(sides[1])


def _is_side(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return float(value) >= 1 and float(value).is_integer()
