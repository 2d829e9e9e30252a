"""A law over methods and backbones: `make test` runs a choice of the pairs, `make test-all` all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest

__all__ = ["over"]


def over(families: Iterable[str], names: Iterable[str]) -> Callable[[Any], Any]:
    """Run a law for pairs of ``family`` and ``name``.

    Every family and every name is in the choice, each law takes other pairs, and the pairs that
    aren't chosen carry the mark ``full``.
    """
    families, names = list(families), list(names)
    step = min(len(families), len(names))

    def decorate(law: Any) -> Any:
        start = zlib.crc32(law.__name__.encode())
        cases = [
            pytest.param(family, name, marks=() if (i - j - start) % step == 0 else FULL)
            for j, name in enumerate(names)
            for i, family in enumerate(families)
        ]
        return pytest.mark.parametrize(("family", "name"), cases)(law)

    return decorate


FULL = (pytest.mark.full,)
