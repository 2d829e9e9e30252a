from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from peft_dense.errors import ShapeError
from peft_dense.layout import (
    check_last_axis,
    from_channels_last,
    to_channels_last,
    tokens_to_map,
)

sizes = st.integers(1, 4)


@settings(deadline=None, max_examples=25)
@given(shape=st.tuples(sizes, sizes, sizes, sizes), axis=st.sampled_from([1, -1]))
def test_channels_go_last_and_come_back(shape: tuple[int, ...], axis: int) -> None:
    x = torch.randn(shape)
    last = to_channels_last(x, axis)
    assert last.shape[-1] == shape[axis]
    assert torch.equal(from_channels_last(last, axis), x)


def test_nchw_becomes_nhwc() -> None:
    x = torch.randn(2, 3, 4, 5)
    assert torch.equal(to_channels_last(x, 1), x.permute(0, 2, 3, 1))
    assert to_channels_last(x, -1) is x
    assert from_channels_last(x, -1) is x


@settings(deadline=None, max_examples=25)
@given(batch=sizes, height=sizes, width=sizes, channels=sizes, prefix=st.integers(0, 3))
def test_token_r_w_plus_c_lands_at_row_r_column_c(
    batch: int, height: int, width: int, channels: int, prefix: int
) -> None:
    tokens = torch.randn(batch, prefix + height * width, channels)
    grid = tokens_to_map(tokens, height, width)
    assert grid.shape == (batch, channels, height, width)
    for row in range(height):
        for column in range(width):
            token = tokens[:, prefix + row * width + column]
            assert torch.equal(grid[:, :, row, column], token)


def test_a_channels_last_map_is_only_turned() -> None:
    x = torch.randn(2, 3, 5, 4)
    assert_close(tokens_to_map(x, 3, 5), x.permute(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(2, 11, 8), (2, 4, 3, 8), (12, 8), (1, 2, 3, 4, 8)])
def test_what_cannot_be_a_map_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"a 3 x 4 map needs .*N >= 12.*got shape \("):
        tokens_to_map(torch.zeros(shape), 3, 4)


@pytest.mark.parametrize("shape", [(2, 1), (2, 7), ()])
def test_a_last_axis_of_another_width_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="Thing works on a last axis of 8 channels"):
        check_last_axis(torch.zeros(shape), 8, "Thing")
    check_last_axis(torch.zeros(2, 8), 8, "Thing")
