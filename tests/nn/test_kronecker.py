from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.nn import KroneckerLinear, KroneckerRule, kronecker_apply, kronecker_sum

small = st.integers(1, 4)
batches = st.lists(st.integers(1, 3), max_size=3)


@st.composite
def layers(draw: st.DrawFn) -> KroneckerLinear:
    n, q, s = draw(small), draw(small), draw(small)
    return KroneckerLinear(
        n * q,
        n * s,
        n,
        bias=draw(st.booleans()),
        rank=draw(st.none() | st.integers(1, min(q, s))),
        rule=KroneckerRule(n).double() if draw(st.booleans()) else None,
    ).double()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@settings(deadline=None, max_examples=30)
@given(n=small, p=small, r=small, q=small, s=small, batch=batches)
def test_sum_and_application_equal_dense_kron(
    n: int, p: int, r: int, q: int, s: int, batch: list[int]
) -> None:
    a = torch.randn(n, p, r, dtype=torch.double)
    b = torch.randn(n, q, s, dtype=torch.double)
    x = torch.randn(*batch, p * q, dtype=torch.double)
    dense = torch.stack([torch.kron(a[i], b[i]) for i in range(n)]).sum(0)
    assert_close(kronecker_sum(a, b), dense)
    assert_close(kronecker_apply(x, a, b), x @ dense)


@settings(deadline=None, max_examples=40)
@given(layer=layers(), batch=batches)
def test_kronecker_linear_equals_dense(layer: KroneckerLinear, batch: list[int]) -> None:
    x = torch.randn(*batch, layer.in_features, dtype=torch.double)
    bias = torch.zeros(1) if layer.bias is None else layer.bias
    dense = sum(torch.kron(a, b) for a, b in layer.factors())
    for layer.materialise in (True, False):
        assert_close(layer(x), x @ dense + bias)
    assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@settings(deadline=None, max_examples=40)
@given(layer=layers())
def test_the_count_is_the_formula(layer: KroneckerLinear) -> None:
    wide, narrow, n = layer.in_features, layer.out_features, layer.n
    owned = n**3 if hasattr(layer, "rule") else 0
    bias = 0 if layer.bias is None else narrow
    fast = wide * narrow // n if layer.rank is None else layer.rank * (wide + narrow)
    assert count(layer) == owned + fast + bias


@pytest.mark.parametrize("materialise", [True, False])
def test_it_exports_with_a_dynamic_batch(materialise: bool) -> None:
    layer = KroneckerLinear(8, 32, n=4, materialise=materialise)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(layer, (torch.randn(3, 8),), dynamic_shapes=({0: batch},))
    for size in (1, 64):
        x = torch.randn(size, 8)
        assert_close(program.module()(x), layer(x))


def test_a_shared_rule_is_counted_once_and_stays_shared() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rule = KroneckerRule(3)
            self.down = KroneckerLinear(12, 6, 3, bias=False, rule=self.rule)
            self.up = KroneckerLinear(6, 12, 3, bias=False, rule=self.rule)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.up(self.down(x))
            return y

    pair = Pair()
    assert count(pair) == 27 + 2 * 12 * 6 // 3
    assert count(pair.down) == 12 * 6 // 3
    copied, x = copy.deepcopy(pair), torch.randn(2, 12)
    copied.rule.weight.data.mul_(2)
    assert_close(copied(x), 4 * pair(x))  # the rule acts in both projections
    pair.double()(x.double())  # it moves with its owner


def test_resetting_leaves_a_borrowed_rule_alone() -> None:
    rule = KroneckerRule(2)
    before = rule.weight.clone()
    KroneckerLinear(4, 4, 2, rule=rule).reset_parameters()
    assert torch.equal(rule.weight, before)
    own = KroneckerLinear(4, 4, 2)
    before = own.rule.weight.clone()
    own.reset_parameters()
    assert not torch.equal(own.rule.weight, before)


def test_where_only_one_divides_it_is_not_called_a_choice() -> None:
    with pytest.raises(HyperparameterError, match=r"(?m); pass 1\.$"):
        KroneckerLinear(5, 7, 2)


@pytest.mark.parametrize("n", [0, 4, 5, 2.0, True])
def test_n_divides_both_widths(n: int) -> None:
    message = r"n is .* divide in_features \(12\) and out_features \(18\); pass one of 1, 2, 3, 6\."
    with pytest.raises(HyperparameterError, match=message):
        KroneckerLinear(12, 18, n)


@pytest.mark.parametrize("rank", [0, 3, 1.0])
def test_the_rank_fits_the_fast_matrices(rank: int) -> None:
    with pytest.raises(HyperparameterError, match=r"rank is .* from 1 to 2, as the fast .* 2 x 3"):
        KroneckerLinear(12, 18, 6, rank=rank)


def test_a_rule_of_another_size_is_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"rule has n = 2, .* pass KroneckerRule\(3\)"):
        KroneckerLinear(6, 6, 3, rule=KroneckerRule(2))


def test_another_width_is_refused() -> None:
    with pytest.raises(ShapeError, match="KroneckerLinear works on a last axis of 6"):
        KroneckerLinear(6, 9, 3)(torch.zeros(2, 9))
