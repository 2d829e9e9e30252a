"""Transforms: image and labels move together, and no label is invented."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from peft_dense.data import Compose, RandomFlip, RandomScaleCrop, Resize
from peft_dense.data.labels import Item
from peft_dense.data.transforms import flip, resize
from peft_dense.errors import HyperparameterError

sides = st.integers(1, 12)
seeds = st.integers(0, 2**16)


def make_item(height: int, width: int, seed: int = 0) -> Item:
    """An item with every kind of label, about a third of its pixels ignored."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    hole = rand(height, width) < 0.3
    normals = torch.nn.functional.normalize(rand(3, height, width) - 0.5, dim=0)
    return {
        "image": rand(3, height, width),
        "semseg": (rand(height, width) * 9).long().masked_fill(hole, 255),
        "normals": normals.masked_fill(hole, 255.0),
        "depth": (1 + rand(1, height, width)).masked_fill(hole, 0.0),
        "meta": {"id": "x"},
    }


def assert_same(a: Item, b: Item) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert a[name] == b[name] if name == "meta" else torch.equal(a[name], b[name])


def columns(label: torch.Tensor) -> set[tuple[float, ...]]:
    """The different pixels of a label, as tuples over channels."""
    return set(map(tuple, label.reshape(-1, *label.shape[-2:]).flatten(1).T.tolist()))


@given(sides, sides, seeds)
def test_flipping_twice_is_the_same(height: int, width: int, seed: int) -> None:
    item = make_item(height, width, seed)
    assert_same(flip(flip(item)), item)


@given(sides, sides, seeds)
def test_flip_mirrors_pixels_and_the_x_of_valid_normals(height: int, width: int, seed: int) -> None:
    item = make_item(height, width, seed)
    before, after = item["normals"], flip(item)["normals"].flip(-1)
    valid = before[0] != 255
    assert_close(after[0][valid], -before[0][valid])
    assert torch.equal(after[1:], before[1:])
    assert (after[:, ~valid] == 255).all()
    assert torch.equal(flip(item)["semseg"].flip(-1), item["semseg"])


@given(sides, sides, sides, sides, seeds)
def test_resize_samples_labels_and_never_mixes_them(
    height: int, width: int, new_height: int, new_width: int, seed: int
) -> None:
    item = make_item(height, width, seed)
    small = resize(item, new_height, new_width)
    for name in ("semseg", "normals", "depth"):
        assert small[name].shape == (*item[name].shape[:-2], new_height, new_width)
        assert small[name].dtype == item[name].dtype
        assert columns(small[name]) <= columns(item[name])
    # All labels sample the same pixel: they agree on what is ignored.
    assert torch.equal(small["semseg"] == 255, small["depth"][0] == 0)
    assert torch.equal(small["semseg"] == 255, small["normals"][0] == 255)


@given(sides, sides, st.integers(1, 3))
def test_enlarging_repeats_pixels_and_resizing_back_undoes_it(
    height: int, width: int, factor: int
) -> None:
    item = make_item(height, width)
    large = resize(item, factor * height, factor * width)
    repeated = item["semseg"].repeat_interleave(factor, 0).repeat_interleave(factor, 1)
    assert torch.equal(large["semseg"], repeated)
    assert torch.equal(resize(large, height, width)["normals"], item["normals"])


def test_resize_commutes_with_flip() -> None:
    item = make_item(12, 9)
    a, b = flip(resize(item, 4, 3)), resize(flip(item), 4, 3)
    for name in ("image", "semseg", "normals", "depth"):
        assert_close(a[name], b[name])


@given(sides, sides, seeds)
def test_scale_crop_at_one_is_resize(height: int, width: int, seed: int) -> None:
    item = make_item(height, width, seed)
    assert_same(RandomScaleCrop((5, 6), scale=(1, 1))(item), Resize((5, 6))(item))


@given(seeds, st.floats(0.3, 3))
def test_scale_crop_gives_the_size_and_invents_nothing(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    item = make_item(6, 8, seed)
    cut = RandomScaleCrop((6, 8), scale=(scale, scale))(item)
    assert cut["image"].shape == (3, 6, 8) and cut["depth"].shape == (1, 6, 8)
    assert columns(cut["semseg"]) <= columns(item["semseg"]) | {(255,)}
    assert columns(cut["normals"]) <= columns(item["normals"]) | {(255.0, 255.0, 255.0)}
    known = torch.cat([item["depth"].flatten(), torch.zeros(1)])
    distance = (cut["depth"].flatten()[:, None] * scale - known).abs().min(1).values
    assert distance.max() < 1e-5


def test_scale_crop_pads_with_black_and_ignored() -> None:
    item = {name: v for name, v in make_item(8, 8).items() if name != "meta"}
    item = {name: torch.ones_like(value) for name, value in item.items()}
    small = RandomScaleCrop((8, 8), scale=(0.5, 0.5))(item)
    inside = small["image"][0] == 1
    assert inside.sum() == 16
    assert torch.equal(small["semseg"] == 255, ~inside)
    assert torch.equal(small["normals"] == 255, (~inside).expand(3, 8, 8))
    assert torch.equal(small["depth"][0], 2.0 * inside)  # half as large, twice as far


def test_flip_happens_with_its_probability() -> None:
    torch.manual_seed(0)
    item = {"image": torch.arange(2.0).expand(3, 1, 2)}
    flips = sum(RandomFlip(0.3)(item)["image"][0, 0, 0].item() == 1 for _ in range(400))
    assert 80 < flips < 160
    assert_same(RandomFlip(0.0)(item), item)


def test_compose_applies_in_order() -> None:
    item = make_item(4, 4)
    both = Compose(Resize((8, 8)), RandomFlip(1.0))(item)
    assert_same(both, flip(resize(item, 8, 8)))


@pytest.mark.parametrize("size", [(4,), (0, 4), (4, 2.5), (1, 2, 3)])
def test_sizes_are_two_positive_integers(size: tuple[int, ...]) -> None:
    for transform in (Resize, RandomScaleCrop):
        with pytest.raises(HyperparameterError, match=r"expected \(height, width\)"):
            transform(size)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(HyperparameterError, match=r"p is a probability; got 2"):
        RandomFlip(2)
    with pytest.raises(HyperparameterError, match=r"expected 0 < smallest <= largest"):
        RandomScaleCrop((4, 4), scale=(2, 1))
