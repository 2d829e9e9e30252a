from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError
from peft_dense.nn import FanInLinear

small = st.integers(1, 6)


@settings(deadline=None, max_examples=30)
@given(inputs=small, outputs=small, bias=st.booleans(), gain=st.sampled_from([0.5, 1.0, 3.0]))
def test_the_layer_is_its_formula(inputs: int, outputs: int, bias: bool, gain: float) -> None:
    layer = FanInLinear(inputs, outputs, bias=bias, gain=gain).double()
    torch.nn.init.normal_(layer.weight)
    x = torch.randn(2, 3, inputs, dtype=torch.double)
    expected = x @ layer.weight.T
    if bias:
        assert layer.bias is not None
        torch.nn.init.normal_(layer.bias)
        expected = expected + layer.bias
    assert_close(layer(x), gain / inputs * expected)
    assert sum(p.numel() for p in layer.parameters()) == outputs * (inputs + bias)


@pytest.mark.parametrize("gain", [0.5, 4.0])
@pytest.mark.parametrize(("given", "expected"), [(None, 1 / 3), (0.5, 32.0), (0.0, 0.0)])
def test_the_start_does_not_depend_on_the_gain(
    gain: float, given: float | None, expected: float
) -> None:
    torch.manual_seed(0)
    layer = FanInLinear(64, 2000, gain=gain, variance=given)
    made = layer(torch.randn(20, 64))
    assert made.var().item() == pytest.approx(expected, rel=0.15)


def test_wrong_widths_are_named() -> None:
    with pytest.raises(HyperparameterError, match="in_features is 0; pass a whole number"):
        FanInLinear(0, 3)
    with pytest.raises(HyperparameterError, match=r"out_features is 2\.5; pass a whole number"):
        FanInLinear(3, 2.5)  # type: ignore[arg-type]
