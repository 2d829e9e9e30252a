"""HRNet-V2's head against its plain form: upsample, concatenate, mix, classify."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError
from peft_dense.heads import HRNetHead

SWIN_TINY = (96, 192, 384, 768)
widths = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def plain(head: HRNetHead, features: list[Tensor]) -> Tensor:
    """The head as the paper writes it, all at the finest resolution."""
    size = features[0].shape[-2:]
    maps = torch.cat([F.interpolate(x, size, mode="bilinear") for x in features], 1)
    return head.classify(head.dropout(F.relu(head.norm(head.mix(maps)))))


@settings(max_examples=15, deadline=None)
@given(
    channels=widths,
    sides=st.lists(st.integers(1, 9), min_size=8, max_size=8).map(lambda s: sorted(s)[::-1]),
    training=st.booleans(),
)
def test_split_mixing_equals_concatenation(
    channels: list[int], sides: list[int], training: bool
) -> None:
    torch.manual_seed(sum(channels))
    head = HRNetHead(channels, 3).double().train(training)
    for parameter in head.parameters():  # biases too, which start at zero
        torch.nn.init.normal_(parameter)
    features = [
        torch.randn(2, c, *sides[2 * i : 2 * i + 2], dtype=torch.double)
        for i, c in enumerate(channels)
    ]
    features = [x[..., : features[0].shape[-1]] for x in features]
    one, other = head(features), plain(head, features)
    assert_close(one, other)
    if training:  # batch statistics are noise where a channel barely varies
        return
    parameters = list(head.parameters())
    gradients = [torch.autograd.grad(out.square().sum(), parameters) for out in (one, other)]
    assert_close(*gradients)


def test_training_gradients_equal_those_of_concatenation() -> None:
    torch.manual_seed(0)
    head = HRNetHead((4, 6, 8), 3).double()
    features = [torch.randn(2, c, 8 >> i, 6 >> i).double() for i, c in enumerate((4, 6, 8))]
    gradients = [
        torch.autograd.grad(out.square().sum(), list(head.parameters()))
        for out in (head(features), plain(head, features))
    ]
    assert_close(*gradients)


@settings(max_examples=10, deadline=None)
@given(channels=widths, out=st.integers(1, 9))
def test_closed_formula_counts_the_parameters(channels: list[int], out: int) -> None:
    counted = sum(p.numel() for p in HRNetHead(channels, out).parameters())
    assert HRNetHead.count(channels, out) == counted


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    head = HRNetHead((4, 6), 3, dropout=0.5)
    features = [torch.randn(2, 4, 4, 4), torch.randn(2, 6, 2, 2)]
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_first_predictions_are_small_and_not_zero() -> None:
    torch.manual_seed(0)
    head = HRNetHead(SWIN_TINY, 21)
    out = head([torch.randn(2, c, 8 >> i, 8 >> i) for i, c in enumerate(SWIN_TINY)])
    assert 0.01 < out.std() < 0.5


def test_impossible_dropout_is_refused() -> None:
    for dropout in (-0.1, 1.0):
        with pytest.raises(HyperparameterError, match=f"dropout is {dropout}; pass a probability"):
            HRNetHead((4,), 3, dropout=dropout)
