"""Colours change as torchvision changes them, in floats and in bytes."""

from __future__ import annotations

import colorsys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.transforms.v2 import functional as F

from peft_dense.data import ColorJitter
from peft_dense.data.transforms.colour import shift_hue

LEVELS = st.floats(0, 1)


@settings(deadline=None)
@given(st.tuples(LEVELS, LEVELS, LEVELS), st.floats(-0.5, 0.5))
def test_a_turned_hue_is_that_of_the_hsv_hexcone(
    colour: tuple[float, float, float], shift: float
) -> None:
    hue, saturation, value = colorsys.rgb_to_hsv(*colour)
    expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
    found = shift_hue(torch.tensor(colour, dtype=torch.float64)[:, None, None], shift).flatten()
    assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


ONE = {
    "brightness": (F.adjust_brightness, 1.3),
    "contrast": (F.adjust_contrast, 0.6),
    "saturation": (F.adjust_saturation, 1.7),
    "hue": (F.adjust_hue, -0.2),
}


@pytest.mark.parametrize("way", ONE)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_each_change_is_torchvisions(way: str, channels: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    image = torch.rand(channels, 9, 7)
    image = (image * 255).round().byte() if dtype == torch.uint8 else image
    before = image.clone()
    change, amount = ONE[way]
    found = ColorJitter(**{way: (amount, amount)})({"image": image})["image"]
    assert found.dtype == dtype and torch.equal(image, before)
    atol = 2 if dtype == torch.uint8 else 1e-4  # bytes are rounded twice there
    assert_close(found.float(), change(image, amount).float(), atol=atol, rtol=0)


def test_changes_come_in_random_order_and_amounts_stay_in_range() -> None:
    item = {"image": torch.rand(3, 6, 6), "sal": torch.ones(6, 6)}
    jitter = ColorJitter((1.8, 1.8), (0.5, 0.5))  # what is cut off tells which comes first
    brighter, contrast = F.adjust_brightness, F.adjust_contrast
    image = item["image"]
    orders = (contrast(brighter(image, 1.8), 0.5), brighter(contrast(image, 0.5), 1.8))
    seen = set()
    for _ in range(40):
        found = jitter(item)["image"]
        (which,) = (n for n, expected in enumerate(orders) if torch.allclose(found, expected))
        seen.add(which)
    assert seen == {0, 1}
    factors = [
        (ColorJitter(brightness=0.2)({"image": torch.full((3, 1, 1), 0.5)})["image"] / 0.5)[0, 0, 0]
        for _ in range(200)
    ]
    assert 0.8 <= min(factors) < 0.83 and 1.17 < max(factors) <= 1.2
