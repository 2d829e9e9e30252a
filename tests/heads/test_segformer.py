"""SegFormer's head against its plain form: project, upsample, concatenate, fuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError
from peft_dense.heads import SegFormerHead

SWIN_TINY = (96, 192, 384, 768)
widths = st.lists(st.integers(1, 12), min_size=1, max_size=4)


def plain(head: SegFormerHead, features: list[Tensor]) -> Tensor:
    """The head as the paper writes it, all at the finest resolution."""
    size = features[0].shape[-2:]
    maps = [
        F.interpolate(project(x.movedim(1, -1)).movedim(-1, 1), size, mode="bilinear")
        for project, x in zip(head.project, features, strict=True)
    ]
    fused = F.relu(head.norm(head.fuse(torch.cat(maps, 1))))
    return head.classify(head.dropout(fused))


@settings(max_examples=15, deadline=None)
@given(
    channels=widths,
    width=st.integers(1, 16),
    sides=st.lists(st.integers(1, 9), min_size=8, max_size=8).map(lambda s: sorted(s)[::-1]),
    training=st.booleans(),
)
def test_split_fusion_equals_concatenation(
    channels: list[int], width: int, sides: list[int], training: bool
) -> None:
    torch.manual_seed(len(channels) + width)
    head = SegFormerHead(channels, 3, width=width).double().train(training)
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
    head = SegFormerHead((4, 6, 8), 3, width=5).double()
    features = [torch.randn(2, c, 8 >> i, 6 >> i).double() for i, c in enumerate((4, 6, 8))]
    gradients = [
        torch.autograd.grad(out.square().sum(), list(head.parameters()))
        for out in (head(features), plain(head, features))
    ]
    assert_close(*gradients)


@settings(max_examples=10, deadline=None)
@given(channels=widths, out=st.integers(1, 9), width=st.integers(1, 32))
def test_closed_formula_counts_the_parameters(channels: list[int], out: int, width: int) -> None:
    head = SegFormerHead(channels, out, width=width)
    counted = sum(p.numel() for p in head.parameters())
    assert SegFormerHead.count(channels, out, width) == counted


def test_four_heads_on_swin_tiny_have_the_published_size() -> None:
    heads = [SegFormerHead(SWIN_TINY, out) for out in (21, 7, 1, 3)]
    assert sum(p.numel() for head in heads for p in head.parameters()) == 2_537_504


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    head = SegFormerHead((4, 6), 3, width=8, dropout=0.5)
    features = [torch.randn(2, 4, 4, 4), torch.randn(2, 6, 2, 2)]
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


def test_first_predictions_are_small_and_not_zero() -> None:
    torch.manual_seed(0)
    head = SegFormerHead(SWIN_TINY, 21)
    out = head([torch.randn(2, c, 8 >> i, 8 >> i) for i, c in enumerate(SWIN_TINY)])
    assert 0.01 < out.std() < 0.5


def test_impossible_options_are_refused() -> None:
    with pytest.raises(HyperparameterError, match="width is 0; pass a whole number from 1"):
        SegFormerHead((4,), 3, width=0)
    for dropout in (-0.1, 1.0):
        with pytest.raises(HyperparameterError, match=f"dropout is {dropout}; pass a probability"):
            SegFormerHead((4,), 3, dropout=dropout)
