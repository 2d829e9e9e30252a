from __future__ import annotations

from functools import partial
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import (
    HyperparameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.nn import Bottleneck, KroneckerLinear, LowRank, apply_bottleneck

Norm = Literal["in", "out"] | None
norms = st.sampled_from(["in", "out", None])
activations = st.sampled_from(["gelu", "relu", "silu", "tanh"])


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)


@settings(deadline=None, max_examples=30)
@given(features=st.integers(2, 9), width=st.integers(1, 6), norm=norms, activation=activations)
def test_module_and_function_agree(features: int, width: int, norm: Norm, activation: str) -> None:
    branch = Bottleneck(features, width, norm=norm, activation=activation, scale=2.5).double()
    randomise(branch)
    x = torch.randn(2, 3, features, dtype=torch.double)
    y = apply_bottleneck(
        x,
        branch.down.weight.T,
        branch.up.weight.T,
        branch.down.bias,
        branch.up.bias,
        norm=norm,
        norm_weight=None if branch.norm is None else branch.norm.weight,
        norm_bias=None if branch.norm is None else branch.norm.bias,
        activation=activation,
    )
    assert_close(branch(x), 2.5 * y)


def test_the_function_is_its_formula() -> None:
    x, down, up, low, high = (
        torch.randn(shape, dtype=torch.double) for shape in ((2, 6), (6, 3), (3, 6), (3,), (6,))
    )
    assert_close(apply_bottleneck(x, down, up), (x @ down).clamp(min=0) @ up)
    assert_close(
        apply_bottleneck(x, down, up, low, high), (x @ down + low).clamp(min=0) @ up + high
    )
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    scaled = normed * high + x[0]
    assert_close(
        apply_bottleneck(x, down, up, norm="in", norm_weight=high, norm_bias=x[0]),
        (scaled @ down).clamp(min=0) @ up,
    )
    assert_close(
        apply_bottleneck(x, down, up, norm="out", norm_weight=high, norm_bias=low.repeat(2)),
        F.layer_norm(apply_bottleneck(x, down, up), (6,), high, low.repeat(2)),
    )


@settings(deadline=None, max_examples=20)
@given(features=st.integers(1, 9), width=st.integers(1, 6), norm=norms)
def test_the_count_is_the_formula(features: int, width: int, norm: Norm) -> None:
    branch = Bottleneck(features, width, norm=norm)
    expected = 2 * features * width + width + features + (norm is not None) * 2 * features
    assert sum(p.numel() for p in branch.parameters()) == expected


@pytest.mark.parametrize("norm", ["in", "out", None])
@pytest.mark.parametrize(
    "linear",
    [nn.Linear, partial(LowRank, rank=2), partial(KroneckerLinear, n=4, rank=1)],
    ids=["dense", "low-rank", "kronecker"],
)
def test_it_starts_silent_and_can_wake(norm: Norm, linear: type[nn.Linear]) -> None:
    branch = Bottleneck(16, 8, norm=norm, linear=linear)
    y = branch(torch.randn(5, 16))
    assert torch.equal(y, torch.zeros(5, 16))
    (y * torch.randn(5, 16)).sum().backward()
    woken = [p for p in branch.up.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert woken


@pytest.mark.parametrize("scale", [0, 0.5, 2, 3])
def test_the_scale_is_a_factor_of_the_branch(scale: float) -> None:
    plain, scaled = Bottleneck(6, 3), Bottleneck(6, 3, scale=scale)
    randomise(plain)
    scaled.load_state_dict(plain.state_dict())
    x = torch.randn(4, 6)
    torch.testing.assert_close(scaled(x), scale * plain(x))


def test_the_low_rank_adapter_of_the_first_stage_has_its_count() -> None:
    # Swin-T's first stage at ratio 16: two rank-1 products, biases and a LayerNorm.
    branch = Bottleneck(96, 6, norm="in", linear=partial(LowRank, rank=1))
    assert sum(p.numel() for p in branch.parameters()) == 2 * (96 + 6) + 96 + 6 + 2 * 96


def test_wrong_arguments_are_named() -> None:
    x, down, up = torch.zeros(2, 6), torch.zeros(6, 3), torch.zeros(3, 6)
    with pytest.raises(UnknownNameError, match="unknown activation 'rleu'; did you mean 'relu'"):
        Bottleneck(6, 3, activation="rleu")
    with pytest.raises(UnknownNameError, match="unknown activation 'swish'"):
        apply_bottleneck(x, down, up, activation="swish")
    with pytest.raises(HyperparameterError, match="norm is 'pre'; pass one of 'in', 'out', None"):
        Bottleneck(6, 3, norm="pre")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="norm is 'pre'; pass one of 'in', 'out', None"):
        apply_bottleneck(x, down, up, norm="pre")  # type: ignore[arg-type]
    with pytest.raises(HyperparameterError, match="norm_weight or norm_bias is given, but norm"):
        apply_bottleneck(x, down, up, norm_weight=torch.ones(6))
    with pytest.raises(HyperparameterError, match="width is 0; pass a whole number from 1 up"):
        Bottleneck(6, 0)
    with pytest.raises(ShapeError, match="Bottleneck works on a last axis of 6"):
        Bottleneck(6, 3)(torch.zeros(2, 5))
    with pytest.raises(ShapeError, match="bottleneck works on a last axis of 6"):
        apply_bottleneck(torch.zeros(2, 5), down, up)
    with pytest.raises(UnsupportedModelError, match=r"linear built Bilinear.* no zero_\(\)"):
        Bottleneck(6, 3, linear=lambda a, b: nn.Bilinear(a, a, b))
