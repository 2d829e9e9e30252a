from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.nn import LayerwiseScalingKernel, VectorScalingKernel

small = st.integers(1, 5)


@settings(deadline=None, max_examples=25)
@given(s=small, a=small, b=small)
def test_matrices_are_a_sum_of_kronecker_products(s: int, a: int, b: int) -> None:
    kernel = LayerwiseScalingKernel(s).double()
    templates = torch.randn(s, a, b, dtype=torch.double)
    if s == 1:
        assert_close(kernel(templates), templates[0])
    else:
        terms = [torch.kron(templates[i], kernel.weight[i]) for i in range(s)]
        assert_close(kernel(templates), torch.stack(terms).sum(0))
    assert sum(p.numel() for p in kernel.parameters()) == (s**3 if s > 1 else 0)


@settings(deadline=None, max_examples=25)
@given(s=small, a=small)
def test_vectors_are_a_sum_of_kronecker_products(s: int, a: int) -> None:
    kernel = VectorScalingKernel(s).double()
    templates = torch.randn(s, a, dtype=torch.double)
    if s == 1:
        assert_close(kernel(templates), templates[0])
    else:
        terms = [torch.kron(templates[i], kernel.weight[i]) for i in range(s)]
        assert_close(kernel(templates), torch.stack(terms).sum(0))
    assert sum(p.numel() for p in kernel.parameters()) == (s**2 if s > 1 else 0)


@pytest.mark.parametrize("kind", [LayerwiseScalingKernel, VectorScalingKernel])
def test_a_wider_layer_starts_with_the_templates_variance(
    kind: type[LayerwiseScalingKernel],
) -> None:
    torch.manual_seed(0)
    s, size = 8, 64
    shape = (s, size, size) if kind is LayerwiseScalingKernel else (s, size)
    made = torch.stack([kind(s)(torch.randn(shape)) for _ in range(20)])
    assert made.var().item() == pytest.approx(1, rel=0.15)


def test_wrong_shapes_and_scales_are_named() -> None:
    message = r"LayerwiseScalingKernel\(2\) takes 2 templates, \(2, a, b\); got .* \(3, 4, 5\)"
    with pytest.raises(ShapeError, match=message):
        LayerwiseScalingKernel(2)(torch.zeros(3, 4, 5))
    with pytest.raises(ShapeError, match=r"\(1, a, b\); got .* \(4, 5\)"):
        LayerwiseScalingKernel(1)(torch.zeros(4, 5))
    with pytest.raises(ShapeError, match=r"VectorScalingKernel\(2\) takes .* \(2, a\); got"):
        VectorScalingKernel(2)(torch.zeros(2, 4, 5))
    for kind in (LayerwiseScalingKernel, VectorScalingKernel):
        with pytest.raises(HyperparameterError, match="scale is 0; pass a whole number from 1"):
            kind(0)
