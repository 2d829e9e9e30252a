"""Checks of hyper-parameters, for layers and methods alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from peft_dense.errors import HyperparameterError


def check_whole(name: str, value: object, *, highest: int | None = None, of: str = "") -> None:
    """Raise unless ``value`` is a whole number from 1 to ``highest``.

    Args:
        name: The hyper-parameter.
        value: What was given.
        highest: The largest value allowed; ``None`` for no limit.
        of: What sets the limit, for the message.

    Raises:
        HyperparameterError: With the range, if the value lies outside.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or value < 1 or (highest is not None and value > highest):  # type: ignore[operator]
        upper = "up" if highest is None else f"to {highest}" + (f", {of}" if of else "")
        raise HyperparameterError(f"{name} is {value!r}; pass a whole number from 1 {upper}.")


def check_divides(name: str, value: object, **widths: int) -> None:
    """Raise unless ``value`` divides every one of ``widths``.

    Raises:
        HyperparameterError: With the values that would do.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    allowed = _divisors(math.gcd(*widths.values()))
    if not whole or value not in allowed:
        what = " and ".join(f"{width} ({number})" for width, number in widths.items())
        choice = f"one of {', '.join(map(str, allowed))}" if len(allowed) > 1 else "1"
        raise HyperparameterError(f"{name} is {value!r}, but must divide {what}; pass {choice}.")


def check_share(name: str, value: object) -> None:
    """Raise unless ``value`` is a number from 0 to 1.

    Raises:
        HyperparameterError: It isn't.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= 1:  # type: ignore[operator]
        raise HyperparameterError(f"{name} is {value!r}; pass a number from 0 to 1.")


def check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise unless ``value`` is one of ``allowed``.

    Raises:
        HyperparameterError: It isn't; the allowed ones are listed.
    """
    if not any(value is one or value == one for one in allowed):
        choices = ", ".join(map(repr, allowed))
        raise HyperparameterError(f"{name} is {value!r}; pass one of {choices}.")


def _divisors(number: int) -> list[int]:
    return [value for value in range(1, number + 1) if number % value == 0]
