from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError, ShapeError, UnsupportedModelError
from peft_dense.nn import DoRALinear, LowRank, LowRankLinear


@st.composite
def widths_and_rank(draw: st.DrawFn) -> tuple[int, int, int]:
    in_features, out_features = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    return in_features, out_features, draw(st.integers(1, min(in_features, out_features)))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter)


@settings(deadline=None, max_examples=30)
@given(shape=widths_and_rank(), bias=st.booleans())
def test_low_rank_is_its_dense_weight_and_has_its_count(
    shape: tuple[int, int, int], bias: bool
) -> None:
    in_features, out_features, rank = shape
    layer = LowRank(in_features, out_features, rank, bias=bias).double()
    x = torch.randn(2, 3, in_features, dtype=torch.double)
    assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    assert torch.linalg.matrix_rank(layer.weight) <= rank
    assert count(layer) == rank * (in_features + out_features) + bias * out_features


@settings(deadline=None, max_examples=30)
@given(shape=widths_and_rank(), bias=st.booleans(), alpha=st.floats(0.5, 32))
def test_lora_called_equals_its_merged_weight(
    shape: tuple[int, int, int], bias: bool, alpha: float
) -> None:
    in_features, out_features, rank = shape
    base = nn.Linear(in_features, out_features, bias=bias).double()
    layer = LowRankLinear(base, rank, alpha=alpha)
    randomise(layer)
    x = torch.randn(2, 3, in_features, dtype=torch.double)
    written_out = base(x) + alpha / rank * (x @ layer.down.T @ layer.up.T)
    assert_close(layer(x), written_out)
    assert_close(F.linear(x, layer.weight, layer.bias), written_out)
    assert torch.equal(layer.merged_weight(), layer.weight)
    assert layer.bias is base.bias
    assert (layer.in_features, layer.out_features) == (in_features, out_features)


@settings(deadline=None, max_examples=20)
@given(shape=widths_and_rank(), norm=st.booleans())
def test_lora_on_a_pointwise_convolution_is_lora_on_its_pixels(
    shape: tuple[int, int, int], norm: bool
) -> None:
    in_features, out_features, rank = shape
    conv = LowRankLinear(nn.Conv2d(in_features, out_features, 1).double(), rank, norm=norm)
    randomise(conv)
    linear = LowRankLinear(nn.Linear(in_features, out_features).double(), rank, norm=norm)
    state = conv.state_dict()
    state["base.weight"] = state["base.weight"].flatten(1)
    linear.load_state_dict(state)
    x = torch.randn(2, in_features, 3, 4, dtype=torch.double)
    assert_close(conv(x), linear(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    if not norm:
        assert conv.weight.shape == conv.base.weight.shape
        assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias))


@settings(deadline=None, max_examples=20)
@given(shape=widths_and_rank(), norm=st.booleans(), conv=st.booleans())
def test_lora_starts_as_its_base_and_has_its_count(
    shape: tuple[int, int, int], norm: bool, conv: bool
) -> None:
    in_features, out_features, rank = shape
    base = nn.Conv2d(in_features, out_features, 1) if conv else nn.Linear(in_features, out_features)
    before = copy.deepcopy(base.state_dict())
    layer = LowRankLinear(base, rank, norm=norm)
    x = torch.randn(2, in_features, 3, 3) if conv else torch.randn(2, in_features)
    assert torch.equal(layer(x), base(x))
    added = rank * (in_features + out_features) + norm * 2 * in_features
    assert count(layer) - count(base) == added
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())


def test_the_norm_sees_the_input_of_the_branch_only() -> None:
    layer = LowRankLinear(nn.Linear(6, 8).double(), 2, alpha=3.0, norm=True)
    randomise(layer)
    assert layer.norm is not None
    x = torch.randn(5, 6, dtype=torch.double)
    branch = layer.norm(x) @ layer.down.T @ layer.up.T
    assert_close(layer(x), layer.base(x) + 1.5 * branch)


@pytest.mark.parametrize("read", ["weight", "merged_weight"])
def test_with_a_norm_there_is_no_weight_to_read(read: str) -> None:
    layer = LowRankLinear(nn.Linear(6, 8), 2, norm=True)
    with pytest.raises(UnsupportedModelError, match=r"normalises the input .* Pass norm=False"):
        getattr(layer, read)()


def test_dora_takes_no_norm() -> None:
    # Its magnitudes are those of a weight, and with a norm there is none.
    with pytest.raises(UnsupportedModelError, match=r"normalises the input .* Pass norm=False"):
        DoRALinear(nn.Linear(6, 8), 2, norm=True)


def test_the_merged_weight_carries_gradients_to_both_factors() -> None:
    layer = LowRankLinear(nn.Linear(6, 8), 2)
    nn.init.normal_(layer.up)
    F.linear(torch.randn(3, 6), layer.weight, layer.bias).square().sum().backward()
    assert layer.down.grad is not None
    assert layer.up.grad is not None
    assert layer.down.grad.abs().min() > 0
    assert layer.up.grad.abs().min() > 0


def test_the_branch_lives_where_its_base_does() -> None:
    layer = LowRankLinear(nn.Linear(6, 8, device="meta", dtype=torch.bfloat16), 2, norm=True)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}


@pytest.mark.parametrize("rank", [0, 7, -1, 2.0, True, "4"])
def test_the_rank_fits_the_smaller_width(rank: int) -> None:
    message = "rank is .*; pass a whole number from 1 to 6, the smaller of 6 and 8"
    with pytest.raises(HyperparameterError, match=message):
        LowRankLinear(nn.Linear(6, 8), rank)
    with pytest.raises(HyperparameterError, match=message):
        LowRank(6, 8, rank)


@pytest.mark.parametrize("alpha", [0, -1.0, float("nan")])
def test_alpha_is_above_zero(alpha: float) -> None:
    with pytest.raises(HyperparameterError, match=r"alpha is .*; pass a number above 0"):
        LowRankLinear(nn.Linear(6, 8), 2, alpha=alpha)


@pytest.mark.parametrize(
    "base",
    [
        nn.Conv2d(6, 8, 3),
        nn.Conv2d(6, 8, 1, stride=2),
        nn.Conv2d(6, 8, 1, padding=1),
        nn.Conv2d(6, 8, 1, groups=2),
        nn.Conv1d(6, 8, 1),
        nn.LayerNorm(6),
    ],
    ids=str,
)
def test_other_layers_are_refused(base: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=r"can't wrap .*takes an nn\.Linear, or"):
        LowRankLinear(base, 2)  # type: ignore[arg-type]


def test_low_rank_refuses_another_width() -> None:
    with pytest.raises(ShapeError, match="LowRank works on a last axis of 6"):
        LowRank(6, 8, 2)(torch.zeros(3, 8))
