"""Transforms: image and labels move together, and no label is invented."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.testing import assert_close
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2.functional._utils import _KERNEL_REGISTRY

from peft_dense.data import Compose, RandomFlip, RandomScaleCrop, Resize, Scenes
from peft_dense.data.labels import Item
from peft_dense.data.transforms import (
    ColorJitter,
    Pack,
    PadTo,
    RandomCrop,
    RandomRotation,
    RandomWarp,
    Unpack,
    augmentation,
    flip,
    resize,
    rotate,
)
from peft_dense.data.transforms.map_types import Label
from peft_dense.errors import HyperparameterError, ShapeError, UnknownNameError

sides = st.integers(1, 12)
seeds = st.integers(0, 2**16)
angles = st.floats(-360, 360)


def make_item(height: int, width: int, seed: int = 0) -> Item:
    """An item with every kind of label, about a third of its pixels ignored."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    hole = rand(height, width) < 0.3
    normals = normalize(rand(3, height, width) - 0.5, dim=0)
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


# What any geometric transform, ours or torchvision's, has to keep. All keep proportions, so that
# one turn and one zoom describe the move of a square item.
MOVES: list[Callable[[Item], Item]] = [
    Resize((36, 36)),
    RandomFlip(1.0),
    RandomRotation(180),
    RandomCrop((20, 30)),
    RandomScaleCrop((24, 24), scale=(0.6, 1.6)),
    PadTo((30, 26)),
    v2.RandomHorizontalFlip(1.0),
    v2.RandomVerticalFlip(1.0),
    v2.RandomRotation(180),
    v2.RandomRotation(80, expand=True, interpolation=v2.InterpolationMode.BILINEAR),
    v2.RandomAffine(180, translate=(0.2, 0.2), scale=(0.6, 1.6)),
    v2.RandomCrop(20, padding=6, pad_if_needed=True, fill=0.5),
    v2.Pad((1, 2, 3, 4)),
    v2.CenterCrop((31, 16)),
    v2.CenterCrop((27, 30)),
    v2.CenterCrop((15, 21)),
    v2.RandomZoomOut(side_range=(1, 2), p=1.0),
    v2.ScaleJitter((30, 30), scale_range=(0.6, 1.5)),
    v2.RandomResize(17, 40),
    v2.RandomShortestSize([40], max_size=30),
    v2.RandomChoice([RandomFlip(1.0), v2.RandomVerticalFlip(1.0)]),
    v2.RandomApply([RandomFlip(1.0), v2.RandomRotation((90, 90))], p=1.0),
    augmentation((24, 24), rotation=30, colour=0.3),
]
ZOOMS = (RandomScaleCrop, v2.RandomAffine, Compose)  # of these depth is divided by the zoom
drawn_moves = st.sampled_from([move for move in MOVES if not isinstance(move, PadTo)])


def make_ruler(side: int = 24) -> Item:
    """An item in which every pixel of image and labels tells where it comes from."""
    place = torch.arange(side * side).reshape(side, side)
    y, x = place // side, place % side
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.stack([x / side, y / side, torch.ones(side, side)]),
        "semseg": 1000 + place,
        "normals": normalize(torch.randn(3, side, side, generator=generator), dim=0),
        "depth": 1.0 + place[None],
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("move", MOVES, ids=lambda move: type(move).__name__)
def test_image_and_labels_move_together_and_vectors_turn_as_positions_do(
    move: Callable[[Item], Item], seed: int
) -> None:
    side = 24
    ruler = make_ruler(side)
    torch.manual_seed(seed)
    moved = Compose(move)(ruler)
    seen = moved["semseg"] != 255
    assert torch.equal(moved["depth"][0] > 0, seen)
    assert torch.equal(moved["normals"] != 255, seen.expand(3, *seen.shape))

    place = moved["semseg"][seen] - 1000
    source = torch.stack([place % side, -(place // side)]).double()  # x right, y up
    rows, columns = seen.nonzero().T
    target = torch.stack([columns, -rows]).double()
    # Least squares: target = linear @ source + shift.
    known = torch.cat([source, torch.ones(1, len(place)).double()])
    linear = torch.linalg.lstsq(known.T, target.T).solution[:2].T
    zoom = linear.det().abs().sqrt()

    before = ruler["normals"].flatten(1)[:, place].double()
    after = moved["normals"][:, seen].double()
    assert_close(after[:2], linear / zoom @ before[:2], atol=0.15, rtol=0)
    turn = torch.linalg.lstsq(before[:2].T, after[:2].T).solution.T
    assert_close(after[:2], turn @ before[:2], atol=1e-5, rtol=0)  # one turn, the same everywhere
    assert_close(turn @ turn.T, torch.eye(2).double(), atol=1e-5, rtol=0)
    assert_close(after[2], before[2])

    factor = moved["depth"][0, seen] / (1 + place)
    assert_close(factor, factor[:1].expand_as(factor))
    expected = 1 / zoom.item() if isinstance(move, ZOOMS) else 1.0
    assert factor[0].item() == pytest.approx(expected, rel=0.08)

    if not isinstance(move, Compose):  # its colours are changed
        image = moved["image"][:, seen]
        at = source * torch.tensor([[1], [-1]])
        inner = (image[2] > 0.999) & (at.amin(0) > 3) & (at.amax(0) < side - 4)
        assert inner.any()
        assert (side * image[:2, inner] - at[:, inner]).abs().max() < 0.55  # of a pixel


@settings(max_examples=40)
@given(st.lists(drawn_moves, min_size=1, max_size=4), st.integers(2, 12), st.integers(2, 12), seeds)
def test_compositions_invent_nothing(
    chain: list[Callable[[Item], Item]], height: int, width: int, seed: int
) -> None:
    item = make_item(height, width, seed)
    copy = {name: v if name == "meta" else v.clone() for name, v in item.items()}
    torch.manual_seed(seed)
    moved = Compose(*chain)(item)
    assert_same(item, copy)
    valid = moved["semseg"] != 255
    assert torch.equal(moved["depth"][0] != 0, valid)
    assert torch.equal(moved["normals"] != 255, valid.expand(3, *valid.shape))
    assert columns(moved["semseg"]) <= columns(item["semseg"]) | {(255,)}
    length = moved["normals"][:, valid].norm(dim=0)
    assert_close(length, torch.ones_like(length))
    known = item["normals"][2][item["semseg"] != 255]
    for z in moved["normals"][2][valid]:
        assert (known - z).abs().min() < 1e-6  # of one valid pixel, not mixed of several
    assert moved["meta"] is item["meta"]
    assert moved["image"].min() >= 0 and moved["image"].max() <= 1


@given(sides, sides, seeds)
def test_rotating_by_nothing_or_a_whole_turn_is_the_same(h: int, w: int, seed: int) -> None:
    item = make_item(h, w, seed)
    assert_same(rotate(item, 0), item)
    for turned in (rotate(item, 360), rotate(rotate(item, 180), -180)):
        for name in ("image", "semseg", "normals", "depth"):
            assert_close(turned[name], item[name])


@given(sides, seeds)
def test_a_quarter_turn_of_a_square_is_rot90_with_vectors_turned(side: int, seed: int) -> None:
    item = make_item(side, side, seed)
    turned = rotate(item, 90)
    for name in ("image", "semseg", "depth"):
        assert torch.equal(turned[name], torch.rot90(item[name], dims=(-2, -1)))
    x, y, z = torch.rot90(item["normals"], dims=(-2, -1))
    minus_y = torch.where(y == 255, y, -y)
    assert_close(turned["normals"], torch.stack([minus_y, x, z]))  # right becomes up, up left
    four = rotate(rotate(rotate(turned, 90), 90), 90)
    for name in ("image", "semseg", "normals", "depth"):
        assert_close(four[name], item[name])


def roof(side: int, degrees: float) -> Item:
    """Render two planes that meet in a crease, seen by a camera whose picture is turned."""
    a = math.radians(degrees)
    at = torch.arange(side) + 0.5 - side / 2
    x, y = at.expand(side, side), -at[:, None].expand(side, side)
    across = math.cos(a) * x + math.sin(a) * y - side / 10  # from the crease, in the roof's frame
    left = normalize(torch.tensor([-0.8, 0.3, 1.0]), dim=0)
    right = normalize(torch.tensor([0.5, 0.9, 1.0]), dim=0)
    turn = torch.tensor(
        [[math.cos(a), -math.sin(a), 0], [math.sin(a), math.cos(a), 0], [0, 0, 1.0]]
    )
    planes = torch.stack([turn @ left, turn @ right])
    which = (across > 0).long()
    return {
        "image": which.float().expand(3, -1, -1),
        "semseg": which,
        "normals": planes[which].movedim(-1, 0),
        "depth": (5 - 0.1 * across)[None],
        "near": (across.abs() < 1.5) | (x**2 + y**2 > (side / 2 - 2) ** 2),
    }


@given(angles)
def test_a_rotated_rendering_is_the_rendering_of_the_rotated(degrees: float) -> None:
    still, again = roof(40, 0), roof(40, degrees)
    inside = ~again.pop("near")
    del still["near"]
    turned = rotate(still, degrees)
    for name, tolerance in (("image", 1e-4), ("semseg", 0), ("normals", 1e-4), ("depth", 0.075)):
        a, b = turned[name][..., inside], again[name][..., inside]
        assert_close(a, b, atol=tolerance, rtol=0)


def test_half_a_turn_of_a_scene_is_two_flips() -> None:
    for index in range(3):
        item = Scenes(3, size=(33, 40))[index]
        turned = rotate(item, 180)
        for name in ("image", "semseg", "human_parts", "sal", "edge", "depth"):
            assert torch.equal(turned[name], item[name].flip(-1, -2)), name
        sign = torch.tensor([-1.0, -1.0, 1.0])[:, None, None]
        assert_close(turned["normals"], sign * item["normals"].flip(-1, -2))


OPENING = {
    "rotate": lambda item: rotate(item, 45),
    "crop": RandomCrop((14, 14)),
    "scale": RandomScaleCrop((10, 10), scale=(0.5, 0.5)),
    "pad": PadTo((13, 13)),
    "v2.Pad": v2.Pad(2, fill=0.5),
    "v2.CenterCrop": v2.CenterCrop(14),
    "v2.RandomAffine": v2.RandomAffine((30, 30), fill=0.5),
}


@pytest.mark.parametrize("name", OPENING)
@pytest.mark.parametrize("padding", [None, "ignore", "background"])
def test_corners_are_what_the_data_set_says(name: str, padding: str | None) -> None:
    ones = torch.ones(10, 10, dtype=torch.int64)
    item = {
        "image": torch.ones(3, 10, 10),
        "semseg": ones,
        "human_parts": ones,
        "absent": 255 * ones,
        "normals": torch.tensor([0.0, 0, 1]).view(3, 1, 1).expand(3, 10, 10),
        "depth": torch.ones(1, 10, 10),
        "meta": {"id": "x", **({"padding": padding} if padding else {})},
    }
    moved = Compose(OPENING[name])(item)
    corner = moved["depth"][0] == 0
    assert 0 < corner.sum() < corner.numel()
    empty = 0 if padding == "background" else 255
    for task in ("semseg", "human_parts"):
        assert torch.equal(moved[task], torch.where(corner, empty, 1))
    assert (moved["absent"] == 255).all()
    assert torch.equal(moved["normals"][2], torch.where(corner, 255.0, 1.0))
    assert torch.equal(moved["normals"][0], torch.where(corner, 255.0, 0.0))
    if name in ("scale", "pad", "crop"):
        assert (moved["image"][:, corner] == 0).all()


def test_a_padded_item_stays_at_the_top_left() -> None:
    item = make_item(5, 7)
    padded = PadTo((9, 8))(item)
    for name in ("image", "semseg", "normals", "depth"):
        assert padded[name].shape[-2:] == (9, 8)
        assert torch.equal(padded[name][..., :5, :7], item[name])


def test_padding_has_two_names() -> None:
    item = make_item(4, 4)
    item["meta"]["padding"] = "backgroud"
    with pytest.raises(UnknownNameError, match="did you mean 'background'"):
        flip(item)


@pytest.mark.parametrize(
    "transform",
    [
        ColorJitter(0.4, 0.4, 0.4, 0.1),
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
        v2.GaussianBlur(3),
        v2.RandomInvert(1.0),
        v2.RandomGrayscale(1.0),
        v2.RandomPhotometricDistort(p=1.0),
        v2.Normalize([0.5] * 3, [0.2] * 3),
        v2.ToDtype(torch.float64, scale=True),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_colours_change_in_the_image_alone(transform: Callable[[Item], Item]) -> None:
    torch.manual_seed(0)
    item = make_item(6, 7)
    changed = Compose(transform)(item)
    image = changed.pop("image")
    assert image.shape == (3, 6, 7)
    assert image.dtype != torch.float32 or not torch.equal(image, item["image"])
    assert_same(changed, {name: v for name, v in item.items() if name != "image"})
    assert all(type(v) in (torch.Tensor, dict) for v in (image, *changed.values()))


def test_every_function_that_moves_masks_knows_our_labels() -> None:
    moving = {f for f, kernels in _KERNEL_REGISTRY.items() if tv_tensors.Mask in kernels}
    moving -= {v2.functional.get_size, v2.functional.to_dtype}
    assert len(moving) >= 11
    assert {f.__name__ for f in moving if Label not in _KERNEL_REGISTRY[f]} == set()


REFUSED = [
    (v2.RandomPerspective(p=1.0), "normals", "perspective .* direction of normals isn't known"),
    (v2.RandomPerspective(p=1.0), "depth", "perspective can't be used: .* depth isn't known"),
    (v2.ElasticTransform(sigma=1.0), "normals", "elastic can't be used"),
    (v2.ElasticTransform(sigma=1.0), "depth", "elastic can't be used"),
    (v2.RandomResizedCrop(8), "depth", "resized_crop can't be used: .*RandomScaleCrop zooms"),
    (v2.RandomAffine(0, shear=(10, 20)), "normals", "affine can't be used"),
    (v2.Pad(2, padding_mode="reflect"), "normals", "pad can't be used"),
    (v2.Pad(2, padding_mode="symmetric"), "normals", "pad can't be used"),
    (v2.RandAugment(), "normals", "not supported by RandAugment"),
    (v2.FiveCrop(4), "depth", "not supported by FiveCrop"),
    (v2.CutMix(num_classes=3), "depth", "does not support"),
    (v2.RandomIoUCrop(), "semseg", "RandomIoUCrop"),
    (v2.Lambda(lambda image: image[..., 1:], tv_tensors.Image), "semseg", "after Lambda.*one"),
    (v2.ToPILImage(), "semseg", "after ToPILImage.*Image.*tensors"),
    (v2.TenCrop(4), "image", "after TenCrop.*tuple.*tensors"),
]


@pytest.mark.parametrize(
    ("transform", "name", "message"),
    REFUSED,
    ids=[f"{type(t).__name__}-{n}" for t, n, _ in REFUSED],
)
def test_what_a_label_cannot_follow_is_an_error(
    transform: Callable[[Item], Item], name: str, message: str
) -> None:
    item = {key: value for key, value in make_item(12, 12).items() if key in ("image", name)}
    with pytest.raises((TypeError, ValueError), match=message):
        Compose(transform)(item)


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomPerspective(p=1.0),
        v2.ElasticTransform(),
        v2.RandomResizedCrop(30),
        v2.RandomAffine(0, shear=20),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_classes_follow_any_transform(transform: Callable[[Item], Item]) -> None:
    side = 32
    ruler = {name: v for name, v in make_ruler(side).items() if name in ("image", "semseg")}
    torch.manual_seed(0)
    moved = Compose(transform)(ruler)
    seen = moved["semseg"] != 255
    place = moved["semseg"][seen] - 1000
    assert place.min() >= 0 and place.max() < side * side
    image = moved["image"][:, seen]
    at = torch.stack([place % side, place // side])
    inner = (image[2] > 0.999) & (at.amin(0) > 2) & (at.amax(0) < side - 3)
    assert inner.sum() > 100
    assert (side * image[:2, inner] - at[:, inner]).abs().max() < 0.6


shrinking = pytest.mark.parametrize(
    "shrink",
    [
        Resize((16, 16)),
        RandomScaleCrop((16, 16), scale=(1, 1)),
        RandomWarp((16, 16), scale=(1, 1)),
        RandomWarp((16, 16), scale=(1, 1), rotation=30),
    ],
    ids=["Resize", "RandomScaleCrop", "RandomWarp", "turned"],
)


@shrinking
def test_what_is_narrower_than_a_pixel_becomes_even(shrink: Callable[[Item], Item]) -> None:
    """Ten pixels become one: stripes of four are as much too narrow as stripes of one."""
    for wide in (1, 2, 3, 4):
        stripes = (torch.arange(160) // wide % 2).float().expand(3, 160, 160)
        small = shrink({"image": stripes})["image"]
        assert (small[:, 4:-4, 4:-4] - 0.5).abs().max() < 0.2, wide


@shrinking
@pytest.mark.parametrize("side", [24, 40, 48, 80])
def test_what_shrinks_is_smoothed(shrink: Callable[[Item], Item], side: int) -> None:
    """Without antialiasing, stripes one pixel wide come out as broad ones."""
    stripes = (torch.arange(side) % 2).float().expand(3, side, side)
    small = shrink({"image": stripes})["image"]
    # Without smoothing 0.5 is left. A narrow filter leaves a part, a warp's quick one a third.
    most = 0.3 if side == 24 else 0.2
    assert (small[:, 4:-4, 4:-4] - 0.5).abs().max() < most


def test_a_rotated_image_is_interpolated_and_its_corners_are_black() -> None:
    at = torch.arange(20) - 9.5
    ramp = (at / 40 + 0.5).expand(3, 20, 20)
    turned = rotate({"image": ramp}, 30)["image"]
    a = math.radians(30)
    inside = (at[:, None] ** 2 + at**2).sqrt() < 8
    source = (math.cos(a) * at - math.sin(a) * at[:, None]) / 40 + 0.5  # rows count downwards
    assert_close(turned[0][inside], source[inside])
    assert (turned[:, 0, 0] == 0).all()


@given(seeds)
def test_the_seed_of_torch_fixes_every_draw(seed: int) -> None:
    item = make_item(9, 12, seed)
    recipe = augmentation((8, 8), scale=(0.5, 2), rotation=90, colour=0.5)
    transform = Compose(recipe, RandomCrop((7, 9)))
    others = random.getstate(), np.random.get_state()[2]  # noqa: NPY002
    results = []
    for number in (seed, seed, seed + 1):
        torch.manual_seed(number)
        results.append(transform(item))
    assert_same(results[0], results[1])
    assert not torch.equal(results[0]["image"], results[2]["image"])
    assert others == (random.getstate(), np.random.get_state()[2])  # noqa: NPY002


def test_what_is_no_map_is_passed_on() -> None:
    extra = {"weight": torch.tensor(3.0), "box": torch.arange(4), "caption": "a cat", "meta": {}}
    moved = Compose(Resize((4, 4)), v2.RandomRotation(9), RandomFlip(1.0))(make_item(5, 5) | extra)
    assert all(moved[name] is value for name, value in extra.items())


def test_labels_take_the_size_that_torchvision_computes() -> None:
    small = Compose(v2.Resize(8, max_size=12))(make_item(10, 20))
    assert small["image"].shape[-2:] == small["semseg"].shape == (6, 12)


def test_an_item_without_image_moves_too() -> None:
    item = {"sal": torch.tensor([[0, 1], [0, 1]])}
    moved = Compose(v2.RandomHorizontalFlip(1.0), v2.RandomCrop((2, 1)))(item)
    assert moved["sal"].shape == (2, 1)


def test_maps_of_an_item_have_one_size() -> None:
    item = make_item(4, 6) | {"edge": torch.zeros(4, 5, dtype=torch.int64)}
    with pytest.raises(ShapeError, match=r"^an item: .*edge \(4, 5\); image and labels are"):
        Resize((4, 4))(item)
    with pytest.raises(ShapeError, match=r"5 x 9 can't be padded to 8 x 8"):
        PadTo((8, 8))(make_item(5, 9))


def test_compose_gives_other_callables_the_plain_item() -> None:
    seen = []
    item = make_item(4, 4)
    Compose(v2.RandomHorizontalFlip(), lambda item: seen.append(item) or item)(item)
    assert seen[0].keys() == item.keys()
    assert all(type(v) in (torch.Tensor, dict) for v in seen[0].values())


def test_rotation_happens_with_its_probability() -> None:
    torch.manual_seed(0)
    item = {"sal": torch.tensor([[0, 1], [2, 3]])}
    turns = sum(RandomRotation((90, 90), 0.3)(item)["sal"][0, 0].item() == 1 for _ in range(400))
    assert 80 < turns < 160


def test_random_crop_reaches_every_place() -> None:
    torch.manual_seed(0)
    item = {"sal": torch.arange(12).reshape(3, 4)}
    corners = {RandomCrop((2, 2))(item)["sal"][0, 0].item() for _ in range(100)}
    assert corners == {0, 1, 2, 4, 5, 6}
    small = {RandomCrop((4, 5))(item)["sal"].flatten().tolist().index(0) for _ in range(100)}
    assert small == {0, 1, 5, 6}


def test_augmentation_takes_what_is_asked_for() -> None:
    warp, unpack = augmentation((4, 6), scale=(1, 2), flip=0.2).transforms
    assert isinstance(warp, RandomWarp) and warp.size == (4, 6) and warp.scale == (1, 2)
    assert warp.flip == 0.2 and warp.rotation == 0 and isinstance(unpack, Unpack)
    warp, colours, pack = augmentation((4, 6), rotation=20, colour=0.4, as_bytes=True).transforms
    assert isinstance(warp, RandomWarp) and warp.rotation == 20 and isinstance(pack, Pack)
    assert isinstance(colours, ColorJitter) and colours.hue == (-0.1, 0.1)
    cut = augmentation([8, 6], rotation=20, colour=0.4, flip=0)(make_item(20, 15))
    assert cut["image"].shape == (3, 8, 6) and cut["normals"].shape == (3, 8, 6)


@pytest.mark.parametrize("size", [(4,), (0, 4), (4, 2.5), (1, 2, 3), 4])
def test_sizes_are_two_positive_integers(size: tuple[int, ...]) -> None:
    for transform in (Resize, RandomScaleCrop, RandomCrop, PadTo, augmentation):
        with pytest.raises(HyperparameterError, match=r"expected \(height, width\)"):
            transform(size)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(HyperparameterError, match=r"p is a probability; got 2"):
        RandomFlip(2)
    with pytest.raises(HyperparameterError, match=r"p is a probability; got -1"):
        RandomRotation(10, p=-1)
    for scale in ((2, 1), (0, 1), (1,)):
        with pytest.raises(HyperparameterError, match=r"expected 0 < smallest <= largest"):
            RandomScaleCrop((4, 4), scale=scale)
    for degrees in (-5, (5, 1), (1, 2, 3), math.nan):
        with pytest.raises(HyperparameterError, match=r"expected one number from 0"):
            RandomRotation(degrees)
    for jitter in ({"hue": 0.7}, {"brightness": -1}, {"contrast": (2, 1)}, {"saturation": "much"}):
        ((name, given),) = jitter.items()
        with pytest.raises(HyperparameterError, match=r"hue at most 0\.5") as error:
            ColorJitter(**jitter)
        assert str(error.value).startswith(f"{name}={given}")
    with pytest.raises(HyperparameterError, match=r"pass the transforms one by one"):
        Compose([Resize((4, 4)), RandomFlip()])
