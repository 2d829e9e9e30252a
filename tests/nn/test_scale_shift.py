from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from peft_dense.errors import ShapeError
from peft_dense.nn import ScaleShift


@settings(deadline=None, max_examples=20)
@given(features=st.integers(1, 9), batch=st.lists(st.integers(1, 3), max_size=3))
def test_every_channel_has_its_own_scale_and_shift(features: int, batch: list[int]) -> None:
    layer, x = ScaleShift(features), torch.randn(*batch, features)
    assert torch.equal(layer(x), x)
    assert sum(p.numel() for p in layer.parameters()) == 2 * features
    layer.scale.data.normal_()
    layer.shift.data.normal_()
    for c in range(features):
        assert_close(layer(x)[..., c], x[..., c] * layer.scale[c] + layer.shift[c])


def test_one_channel_is_not_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"ScaleShift works on a last axis of 4 .* \(2, 1\)"):
        ScaleShift(4)(torch.zeros(2, 1))
