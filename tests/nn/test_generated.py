"""The generated bottleneck: baked, it is the plain one with the same weights."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from peft_dense.nn import GeneratedBottleneck


class Source(nn.Module):
    """Make the weights of a bottleneck from 6 to 2 channels and back."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        shapes = {"down": (6, 2), "up": (2, 6), "down_bias": (2,)}
        self.made = {name: torch.randn(shapes.get(name, (6,))) for name in names}

    def forward(self) -> dict[str, Tensor]:
        return self.made


@pytest.mark.parametrize("norm", ["in", "out", None])
@pytest.mark.parametrize("biases", [(), ("down_bias", "up_bias")])
@pytest.mark.parametrize("norms", [(), ("norm_weight",), ("norm_weight", "norm_bias")])
def test_baked_it_computes_the_same_whatever_its_source_makes(
    norm: Literal["in", "out"] | None, biases: tuple[str, ...], norms: tuple[str, ...]
) -> None:
    made = () if norm is None else norms
    branch = GeneratedBottleneck(Source("down", "up", *biases, *made), norm=norm)
    x = torch.randn(4, 6)
    torch.testing.assert_close(branch.bake()(x), branch(x))
