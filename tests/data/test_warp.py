"""One resampling shows what three do: rotation, scaling and cropping, mirroring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from peft_dense.data import (
    Compose,
    DenseFolder,
    RandomFlip,
    RandomRotation,
    RandomScaleCrop,
    RandomWarp,
    Scenes,
    augmentation,
    collate,
    on_device,
)
from peft_dense.data.labels import Item
from peft_dense.data.transforms import Pack, Unpack
from peft_dense.errors import HyperparameterError, ShapeError

SCENES = Scenes(4, (60, 80), seed=3)


def three(size: tuple[int, int], scale: tuple[float, float], rotation: float) -> Compose:
    """What a warp does, in three resamplings."""
    turn = [RandomRotation(rotation)] if rotation else []
    return Compose(*turn, RandomScaleCrop(size, scale), RandomFlip())


def shift_of(label: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where a label differs from all nine neighbours of the other."""
    around = torch.nn.functional.pad(other[None].float(), (1, 1, 1, 1), mode="replicate")[0]
    height, width = label.shape
    near = [around[y : y + height, x : x + width] == label for y in range(3) for x in range(3)]
    return ~torch.stack(near).any(0)


@pytest.mark.parametrize("rotation", [0, 15, 180])
@pytest.mark.parametrize("scale", [(0.5, 1.0), (1.0, 2.0)])
@pytest.mark.parametrize("size", [(48, 48), (96, 64), (25, 33)])
def test_a_warp_shows_what_three_moves_show(
    size: tuple[int, int], scale: tuple[float, float], rotation: float
) -> None:
    warp, chain = RandomWarp(size, scale, rotation), three(size, scale, rotation)
    for seed in range(6):
        item = SCENES[seed % 4]
        torch.manual_seed(seed)
        expected = chain(item)
        after = torch.rand(())
        torch.manual_seed(seed)
        found = warp(item)
        assert torch.equal(torch.rand(()), after)  # as many draws
        assert (found["image"] - expected["image"]).abs().mean() < 0.03
        for name in ("semseg", "human_parts", "sal"):
            assert found[name].dtype == torch.int64
            assert shift_of(found[name], expected[name]).float().mean() < 0.01
        for name, where in (("normals", 255), ("depth", 0)):
            both = (found[name][0] != where) & (expected[name][0] != where)
            differ = (found[name] - expected[name]).abs().amax(0)[both]
            assert (differ > 0.1).float().mean() < 0.15
            bare = (found[name][0] == where) != (expected[name][0] == where)
            assert bare.float().mean() < 0.05
        assert found["meta"] == item["meta"]


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1, 1), (1.7, 1.7)])
def test_without_rotation_labels_are_the_same_to_the_pixel(scale: tuple[float, float]) -> None:
    for seed in range(4):
        torch.manual_seed(seed)
        expected = three((48, 56), scale, 0)(SCENES[seed])
        torch.manual_seed(seed)
        found = RandomWarp((48, 56), scale)(SCENES[seed])
        for name in ("semseg", "human_parts", "sal", "edge", "normals"):
            assert torch.equal(found[name], expected[name]), name
        assert_close(found["depth"], expected["depth"])


def test_a_warp_that_moves_nothing_gives_the_item_back() -> None:
    item = SCENES[0]
    still = RandomWarp((60, 80), (1, 1), flip=0)(item)
    for name, value in item.items():
        if name == "image":
            assert_close(still[name], value, atol=1e-4, rtol=0)
        else:
            assert still[name] == value if name == "meta" else torch.equal(still[name], value)


@pytest.mark.parametrize("scale", [0.3, 0.6, 1.0, 2.0])
def test_what_is_even_stays_even_up_to_the_border(scale: float) -> None:
    image = torch.tensor([0.2, 0.5, 0.8])[:, None, None].expand(3, 40, 50)
    warp = RandomWarp((32, 24), (scale, scale))
    seen = warp({"image": image, "sal": torch.ones(40, 50, dtype=torch.int64)})
    inside = seen["sal"] == 1
    assert_close(seen["image"][:, inside], image[:, :1, 0].expand(3, int(inside.sum())))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 180]))
def test_labels_are_sampled_and_agree_on_what_is_bare(
    seed: int, height: int, width: int, rotation: float
) -> None:
    torch.manual_seed(seed)
    classes = torch.randint(1, 9, (height, width))
    item = {
        "image": 0.5 + 0.5 * torch.rand(3, height, width),
        "semseg": classes,
        "depth": classes[None].float(),
    }
    moved = RandomWarp((8, 7), (0.4, 3), rotation)(item)
    bare = moved["semseg"] == 255
    assert set(moved["semseg"].unique().tolist()) <= {255, *classes.unique().tolist()}
    assert torch.equal(bare, moved["depth"][0] == 0)
    assert torch.equal(bare, (moved["image"] == 0).all(0))


@pytest.mark.parametrize("rotation", [0, 40])
def test_padding_is_what_the_data_set_says(rotation: float) -> None:
    item = {"sal": torch.ones(8, 8, dtype=torch.int64), "meta": {"padding": "background"}}
    moved = RandomWarp((8, 8), (0.5, 0.5), rotation)(item)["sal"]
    assert moved.unique().tolist() == [0, 1]


# ------------------------------------------------------------------------------------ bytes


def as_bytes(item: Item) -> Item:
    return {**item, "image": (item["image"] * 255).round().byte()}


def test_bytes_are_warped_as_floats_are_up_to_rounding() -> None:
    for seed in range(4):
        item = SCENES[seed]
        torch.manual_seed(seed)
        expected = augmentation((50, 40), rotation=20)(item)
        torch.manual_seed(seed)
        packed = augmentation((50, 40), rotation=20, as_bytes=True)(as_bytes(item))
        assert packed["image"].dtype == packed["semseg"].dtype == torch.uint8
        assert packed["normals"].dtype == torch.float16
        found = Unpack()(packed)
        assert_close(found["image"], expected["image"], atol=0.51 / 255, rtol=0)
        for name in ("semseg", "human_parts", "sal", "edge", "depth"):
            assert torch.equal(found[name], expected[name]), name
        assert_close(found["normals"], expected["normals"], atol=1e-3, rtol=0)
        moved = on_device(collate([packed]), "cpu")
        assert torch.equal(moved["image"][0], found["image"])


def test_the_tasks_read_what_is_packed() -> None:
    from peft_dense.data import tasks_of

    packed = collate([Pack()(SCENES[index]) for index in range(2)])
    plain = collate([SCENES[index] for index in range(2)])
    for name, task in tasks_of(SCENES).items():
        prediction = torch.randn(2, task.channels, 60, 80)
        expected = task.loss(prediction, plain[name])
        assert_close(task.loss(prediction, packed[name]), expected, atol=1e-3, rtol=1e-3)


def photo(root: Path, height: int, width: int) -> Path:
    """A smooth JPEG with a mask, in a folder."""
    for place in ("images", "sal"):
        (root / place).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    image.save(root / "images" / "a.jpg", quality=95)
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 1
    Image.fromarray(mask).save(root / "sal" / "a.png")
    (root / "train.txt").write_text("a\n")
    return root


@pytest.mark.parametrize(
    ("size", "part"), [((403, 605), 4), ((400, 600), 4), ((203, 305), 2), ((803, 1205), 8)]
)
@pytest.mark.parametrize("rotation", [0, 20])
def test_large_photographs_are_decoded_smaller_and_look_the_same(
    tmp_path: Path, size: tuple[int, int], part: int, rotation: float
) -> None:
    root = photo(tmp_path, *size)
    chain = augmentation((48, 64), rotation=rotation)
    assert chain.smallest == (60, 80)
    data = DenseFolder(root, "train", ["sal"], chain)
    read = []

    def watch(item: Item) -> Item:
        read.append(item["image"].shape)
        return chain(item)

    watch.takes_bytes, watch.smallest = True, chain.smallest  # type: ignore[attr-defined]
    data.transform = watch
    torch.manual_seed(1)
    found = data[0]
    assert read[0][1:] == (-(-size[0] // part), -(-size[1] // part))
    data.transform = None
    torch.manual_seed(1)
    expected = chain(data[0])
    assert (found["image"] - expected["image"]).abs().mean() < 0.02
    assert torch.equal(found["sal"], expected["sal"])
    assert found["meta"]["size"] == size


def test_only_what_is_large_enough_is_decoded_smaller(tmp_path: Path) -> None:
    root = photo(tmp_path, 100, 200)
    for smallest, expected in (((51, 20), (100, 200)), ((50, 100), (50, 100)), ((1, 1), (13, 25))):
        seen = []
        transform = Compose(lambda item, seen=seen: seen.append(item["image"].shape[1:]) or item)
        transform.smallest = smallest
        DenseFolder(root, "train", [], transform)[0]
        assert tuple(seen[0]) == expected


def test_a_turned_photograph_is_decoded_smaller_too(tmp_path: Path) -> None:
    root = photo(tmp_path, 104, 400)
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.open(root / "images" / "a.jpg")
    stored.load()
    stored.save(root / "images" / "a.jpg", exif=exif)
    seen = []
    transform = Compose(lambda item: seen.append(item["image"]) or item)
    transform.smallest = (200, 52)  # as it is shown
    item = DenseFolder(root, "train", [], transform)[0]
    assert item["image"].shape == (3, 200, 52) and item["meta"]["size"] == (400, 104)
    whole = DenseFolder(root, "train", [])[0]["image"]
    small = torch.nn.functional.avg_pool2d(whole, 2)
    assert (item["image"] - small).abs().mean() < 0.02


def test_bytes_come_only_to_those_who_treat_them(tmp_path: Path) -> None:
    root = photo(tmp_path, 60, 80)
    for transform, dtype in (
        (None, torch.float32),
        (RandomWarp((8, 8)), torch.float32),
        (Compose(RandomWarp((8, 8)), RandomFlip()), torch.float32),
        (augmentation((8, 8), colour=0.3), torch.float32),
        (augmentation((8, 8), colour=0.3, as_bytes=True), torch.uint8),
        (Pack(), torch.uint8),
    ):
        assert DenseFolder(root, "train", ["sal"], transform)[0]["image"].dtype == dtype
    assert augmentation((8, 8), colour=0.3).takes_bytes and not Compose(RandomFlip()).takes_bytes


# ------------------------------------------------------------------------------------ bad input


def test_maps_of_other_sizes_are_refused() -> None:
    item = {"image": torch.rand(3, 8, 8), "sal": torch.ones(8, 7, dtype=torch.int64)}
    with pytest.raises(ShapeError, match=r"an item: image \(8, 8\), sal \(8, 7\)"):
        RandomWarp((4, 4))(item)


@pytest.mark.parametrize(
    "options",
    [{"scale": (0, 1)}, {"scale": (2, 1)}, {"rotation": -1}, {"rotation": 181}, {"flip": 1.5}],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(HyperparameterError, match="expected"):
        RandomWarp((4, 4), **options)


def test_colours_of_many_channels_are_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"an image has 5\. Leave it out \(colour=0\)"):
        augmentation((4, 4), colour=0.2)({"image": torch.rand(5, 8, 8)})
