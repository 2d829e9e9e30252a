"""Images and labels as people have them: what is on disk is read as what it is, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.testing import assert_close

from peft_dense.data import (
    DenseFolder,
    Resize,
    augmentation,
    blank_item,
    collate,
    layout_of,
    open_data,
    parse_tasks,
    tasks_of,
)
from peft_dense.data.images import turned, white_of
from peft_dense.errors import DataError, HyperparameterError, UnknownNameError

H, W = 6, 8
rng = np.random.default_rng(0)


def folder(root: Path, *ids: str, lists: tuple[str, ...] = ("train",)) -> Path:
    """An empty folder that lists some ids."""
    (root / "images").mkdir(exist_ok=True)
    for name in lists:
        (root / f"{name}.txt").write_text("".join(f"{each}\n" for each in ids))
    return root


def save(path: Path, array: np.ndarray, **options: object) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path, **options)


def pixels(height: int = H, width: int = W, channels: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def masked(root: Path, values: dict[str, np.ndarray], task: str = "sal") -> Path:
    """A folder with an image and a mask for each id."""
    folder(root, *values)
    for name, mask in values.items():
        save(root / "images" / f"{name}.png", pixels(*mask.shape))
        save(root / task / f"{name}.png", mask)
    return root


def mask(*values: int, dtype: type = np.uint8) -> np.ndarray:
    return np.resize(np.array(values, dtype), (H, W))


# ------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("task", ["sal", "edge"])
def test_masks_of_0_and_255_are_background_and_foreground(tmp_path: Path, task: str) -> None:
    root = masked(tmp_path, {"a": mask(0, 255), "b": mask(0), "c": mask(255)}, task)
    a, b, c = (item[task] for item in DenseFolder(root, "train", [task]))
    assert a.flatten()[:4].tolist() == [0, 1, 0, 1]
    assert (b == 0).all() and (c == 1).all()


@pytest.mark.parametrize("task", ["sal", "edge"])
def test_255_is_ignored_if_any_file_of_the_folder_holds_a_1(tmp_path: Path, task: str) -> None:
    root = masked(tmp_path, {"a": mask(0, 255), "b": mask(0, 1)}, task)
    (root / "train.txt").write_text("a\n")  # whatever is listed
    (item,) = DenseFolder(root, "train", [task])
    assert item[task].flatten()[:4].tolist() == [0, 255, 0, 255]


def test_a_value_that_is_no_mark_is_refused_by_file(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 255), "b": mask(0, 37, 255)})
    data = DenseFolder(root, "train", ["sal"])
    with pytest.raises(DataError, match=r"sal.b.png holds 37; masks are of 0 and 1 .*of 0 and 255"):
        data[1]
    root = masked(tmp_path, {"b": mask(0, 255)})
    data = DenseFolder(root, "train", ["sal"])
    save(root / "sal" / "b.png", mask(0, 1))  # changed since
    with pytest.raises(DataError, match=r"sal.b.png holds 1; masks are"):
        data[0]
    root = masked(tmp_path, {"a": mask(*range(2, 30))})
    with pytest.raises(DataError, match=r"sal.a.png holds 2, 3, 4, 5, 6; masks are"):  # no more
        DenseFolder(root, "train", ["sal"])[0]


def test_masks_of_one_bit_and_of_truth_values_are_marks(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0), "b": mask(0)})
    (root / "sal" / "b.png").unlink()
    save(root / "sal" / "b.npy", mask(0, 1).astype(bool))
    Image.fromarray(mask(0, 255)).convert("1").save(root / "sal" / "a.png")
    for item in DenseFolder(root, "train", ["sal"]):
        assert item["sal"].flatten()[:4].tolist() == [0, 1, 0, 1]


def test_an_unreadable_mask_does_not_decide_for_the_others(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 255), "b": mask(0)})
    (root / "sal" / "b.png").write_bytes(b"nothing")
    data = DenseFolder(root, "train", ["sal"])
    assert data[0]["sal"].sum() == H * W / 2
    with pytest.raises(DataError, match=r"can't read .*b.png"):
        data[1]


# ------------------------------------------------------------------------------------ classes


def test_a_class_beyond_the_declared_names_file_class_and_number(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 4), "b": mask(31, 255)}, "semseg")
    (root / "classes.json").write_text(
        json.dumps({"semseg": ["sky", "sea", "sand", "sun", "sail"]})
    )
    data = DenseFolder(root, "train", ["semseg"])
    assert data[0]["semseg"].max() == 4
    said = r"semseg.b.png holds class 31; .*classes.json declares 5 classes of semseg, 0 to 4"
    with pytest.raises(DataError, match=said):
        data[1]
    assert DenseFolder(root, "train", ["semseg"], classes={"semseg": 32})[1]["semseg"].max() == 255


def test_undeclared_classes_are_counted_and_never_get_vocs_names(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 4), "b": mask(2, 255), "c": mask(30)}, "semseg")
    (root / "train.txt").write_text("a\n")  # the others are of other lists
    semseg = tasks_of(DenseFolder(root, "train", ["semseg"]))["semseg"]
    assert semseg.channels == 31 and semseg.classes[15] == "class 15"
    (root / "classes.json").write_text('{"semseg": 40}')
    assert tasks_of(DenseFolder(root, "train", ["semseg"]))["semseg"].channels == 40
    given = DenseFolder(root, "train", ["semseg"], classes={"semseg": ["no", "yes"] * 20})
    assert tasks_of(given)["semseg"].classes[:2] == ("no", "yes")
    for name in "abc":
        save(root / "semseg" / f"{name}.png", mask(255))
    (root / "classes.json").unlink()
    with pytest.raises(DataError, match="semseg holds a class, so their number isn't known"):
        tasks_of(DenseFolder(root, "train", ["semseg"]))


@pytest.mark.parametrize("ending", ["png", "npy", "tif"])
def test_more_than_255_classes_come_as_16_bits(tmp_path: Path, ending: str) -> None:
    root = masked(tmp_path, {"a": mask(0)}, "species")
    (root / "species" / "a.png").unlink()
    save(root / "species" / f"a.{ending}", mask(0, 255, 300, 65535, dtype=np.uint16))
    with pytest.raises(DataError, match="more than 255 classes have to be declared"):
        DenseFolder(root, "train", ["species"])[0]
    (root / "classes.json").write_text('{"species": 301}')
    data = DenseFolder(root, "train", ["species"], Resize((H, W)))
    item = data[0]
    assert item["species"].flatten()[:4].tolist() == [0, 255, 300, 65535]
    species = tasks_of(data)["species"]
    assert species.counts(item["species"][None]).tolist() == [H * W * 3 // 4]
    moved = augmentation((12, 12), scale=(0.5, 0.5), flip=0)(item)["species"]
    assert (moved == 65535).sum() > 12 * 12 // 2  # what the image doesn't reach
    assert (blank_item(data)["species"] == 65535).all()
    (root / "species" / f"a.{ending}").unlink()
    assert (DenseFolder(root, "train", ["species"])[0]["species"] == 65535).all()


def test_classes_json_is_read_as_utf8(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 1)}, "semseg")
    (root / "classes.json").write_bytes('\ufeff{"semseg": ["Straße", "空"]}'.encode())
    assert DenseFolder(root, "train", ["semseg"]).classes == {"semseg": ["Straße", "空"]}
    for wrong in ('{"semseg": [1]}', '{"semseg": []}', '{"semseg": 0}', '{"semseg": true}', "[1]"):
        (root / "classes.json").write_text(wrong)
        with pytest.raises(DataError, match=r"classes.json isn't JSON of the form \{task: \[names"):
            DenseFolder(root, "train", ["semseg"])


# ------------------------------------------------------------------------------------ own tasks


@pytest.mark.parametrize("how", ["file", "argument"])
def test_tasks_of_ones_own_have_the_kind_that_is_declared(tmp_path: Path, how: str) -> None:
    root = masked(tmp_path, {"a": mask(0, 255)}, "roofs")
    save(root / "height" / "a.npy", mask(2).astype(np.float32))
    save(root / "facing" / "a.png", np.full((H, W, 3), (255, 127, 127), np.uint8))
    save(root / "walls" / "a.png", mask(0, 255))
    kinds = {"roofs": "binary", "height": "depth", "facing": "normals", "walls": "edge"}
    if how == "file":
        (root / "classes.json").write_text(json.dumps(kinds))
    given = None if how == "file" else kinds
    data = open_data(root, "train", kinds=given)
    assert data.tasks == ("facing", "height", "roofs", "walls")
    found = tasks_of(data)
    assert {name: found[name].kind for name in data.tasks} == kinds
    item = data[0]
    assert item["height"].shape == (1, H, W) and item["facing"].shape == (3, H, W)
    assert item["roofs"].unique().tolist() == item["walls"].unique().tolist() == [0, 1]

    # They move as their kind does, whatever they are called.
    data.transform = augmentation((H, W), scale=(2, 2), flip=1)
    moved = data[0]
    assert moved["height"].unique().tolist() == [1.0]
    assert_close(moved["facing"][0], torch.full((H, W), -1.0), atol=0.01, rtol=0)
    batch = collate([moved, moved])
    for name, each in found.items():
        prediction = torch.zeros(2, each.channels, H, W)
        assert each.loss(prediction, batch[name]).isfinite()
    blank = blank_item(data)
    assert all(found[name].counts(blank[name][None])[0] == 0 for name in found)


def test_what_a_declaration_cannot_say(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 1)})
    with pytest.raises(HyperparameterError, match="sal has labels of kind binary"):
        DenseFolder(root, "train", ["sal"], kinds={"sal": "depth"})
    with pytest.raises(UnknownNameError, match="unknown kind of labels 'binry'"):
        DenseFolder(root, "train", ["sal"], kinds={"sal": "binry"})


def test_tasks_are_read_from_the_command_line() -> None:
    assert parse_tasks("a,b=depth") == (("a", "b"), {"b": "depth"})
    for text in ("", "a,,b", "a,a=depth", "=depth"):
        with pytest.raises(DataError, match="names a task twice, or has an empty name"):
            parse_tasks(text)


# ------------------------------------------------------------------------------------ layouts


def test_a_folder_without_known_labels_says_what_is_expected(tmp_path: Path) -> None:
    root = masked(tmp_path, {"a": mask(0, 1)}, "masks")
    said = r"beside images/ it has masks/\. Call label folders by their task .*masks=binary"
    with pytest.raises(DataError, match=said):
        open_data(root, "train")
    assert open_data(root, "train", kinds={"masks": "binary"})[0]["masks"].max() == 1
    assert open_data(root, "train", ["masks"])[0]["masks"].max() == 1


def test_what_only_looks_like_a_layout_is_known_by_its_own_name(tmp_path: Path) -> None:
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / "voc" / name).mkdir(parents=True)
    assert layout_of(tmp_path / "voc") == "voc"
    for name in ("annotations/training", "images/training"):
        (tmp_path / "ade" / name).mkdir(parents=True)
    assert layout_of(tmp_path / "ade") == "ade20k"
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"holds ade/, masks/, voc/.*train.txt .*images/<id>.jpg"):
        open_data(tmp_path, "train")


# ------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    "ending", [".JPG", ".Jpeg", ".jpeg", ".PNG", ".tif", ".TIFF", ".webp", ".bmp", ".npy"]
)
def test_images_are_found_whatever_their_ending_and_its_case(tmp_path: Path, ending: str) -> None:
    folder(tmp_path, "a")
    (tmp_path / "sal").mkdir()
    flat = np.full((H, W, 3), (200, 100, 50), np.uint8)
    save(tmp_path / "images" / f"a{ending}", flat)
    image = DenseFolder(tmp_path, "train", ["sal"])[0]["image"]
    assert image.dtype == torch.float32 and image.shape == (3, H, W)
    assert_close(image[:, 0, 0], torch.tensor([200, 100, 50]) / 255, atol=0.02, rtol=0)


@pytest.mark.parametrize("place", ["images", "sal"])
@pytest.mark.parametrize("other", ["a.PNG", "a.npy", "a.bmp"])
def test_two_files_for_one_id_are_refused_with_both_names(
    tmp_path: Path, place: str, other: str
) -> None:
    root = masked(tmp_path, {"a": mask(0, 1)})
    save(root / place / other, pixels() if place == "images" else mask(0, 1))
    said = rf"{place} has 2 files for 'a': (a.png, {other}|{other}, a.png)\. Remove or"
    with pytest.raises(DataError, match=said):
        DenseFolder(root, "train", ["sal"])[0]


def test_ids_may_lie_in_folders_and_hold_dots(tmp_path: Path) -> None:
    folder(tmp_path, "bonn/a.1", "ulm/a.1")
    for town in ("bonn", "ulm"):
        for place in ("images", "sal"):
            (tmp_path / place / town).mkdir(parents=True)
        save(tmp_path / "images" / town / "a.1.png", pixels())
        save(tmp_path / "sal" / town / "a.1.png", mask(0, 1))
    assert [item["meta"]["id"] for item in DenseFolder(tmp_path, "train", ["sal"])] == [
        "bonn/a.1",
        "ulm/a.1",
    ]


# ------------------------------------------------------------------------------------ pixels


def image_of(root: Path, name: str = "a.png", **options: object) -> torch.Tensor:
    (root / "sal").mkdir(exist_ok=True)
    folder(root, name.split(".")[0])
    return DenseFolder(root, "train", ["sal"], **options)[0]["image"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK"])
def test_images_of_any_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    folder(tmp_path, "a")
    colour = Image.fromarray(np.full((H, W, 3), (255, 0, 0), np.uint8))
    given = colour.convert(mode)
    if mode in ("LA", "RGBA"):
        given.putalpha(7)
    given.save(tmp_path / "images" / ("a.jpg" if mode == "CMYK" else "a.png"))
    expected = torch.tensor(np.asarray(given.convert("RGB")) / 255).float().movedim(-1, 0)
    assert_close(image_of(tmp_path), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(("bits", "white"), [(16, 65535), (12, 4095), (10, 1023), (14, 16383)])
@pytest.mark.parametrize("ending", ["png", "tif", "npy"])
def test_grey_of_many_bits_is_scaled_not_cut_off(
    tmp_path: Path, bits: int, white: int, ending: str
) -> None:
    folder(tmp_path, "a")
    values = np.linspace(0, 2**bits - 1, H * W).astype(np.uint16).reshape(H, W)
    save(tmp_path / "images" / f"a.{ending}", values)
    image = image_of(tmp_path)
    assert image.shape == (1 if ending == "npy" else 3, H, W)
    assert_close(image[0], torch.tensor(values / white).float())
    assert (image == 1).float().mean() < 0.1
    assert_close(image_of(tmp_path, white=70000)[0], torch.tensor(values / 70000).float())


def test_white_is_that_of_the_whole_folder_and_what_exceeds_it_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, "a", "b")
    save(tmp_path / "images" / "a.png", mask(0, 200, dtype=np.uint16))
    save(tmp_path / "images" / "b.png", mask(0, 4000, dtype=np.uint16))
    (tmp_path / "sal").mkdir()
    data = DenseFolder(tmp_path, "train", ["sal"])
    assert data.white == white_of(sorted((tmp_path / "images").iterdir())) == 4095
    assert_close(data[0]["image"].max(), torch.tensor(200 / 4095))
    save(tmp_path / "images" / "b.png", mask(0, 9000, dtype=np.uint16))
    with pytest.raises(
        DataError, match=r"b.png holds 0 to 2.19.* with white at 4095.*white=\.\.\."
    ):
        data[1]


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels_flows_through(tmp_path: Path, channels: int) -> None:
    folder(tmp_path, "a")
    save(tmp_path / "images" / "a.npy", pixels(channels=channels))
    stored = torch.tensor(np.load(tmp_path / "images" / "a.npy")).movedim(-1, 0)
    assert_close(image_of(tmp_path), stored / 255)
    moved = augmentation((12, 10), rotation=10)({"image": stored / 255, "sal": torch.ones(H, W)})
    assert moved["image"].shape == (channels, 12, 10)


def test_pages_of_a_tiff_are_channels(tmp_path: Path) -> None:
    folder(tmp_path, "a")
    pages = [Image.fromarray(pixels()[..., 0]) for _ in range(5)]
    pages[0].save(tmp_path / "images" / "a.tif", save_all=True, append_images=pages[1:])
    image = image_of(tmp_path)
    assert image.shape == (5, H, W)
    assert_close(image[3], torch.tensor(np.asarray(pages[3])) / 255)


@pytest.mark.parametrize("ending", ["tif", "TIFF"])
def test_bands_of_a_tiff_are_channels(tmp_path: Path, ending: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    folder(tmp_path, "a")
    bands = rng.integers(0, 65536, (H, W, 6), np.uint16)
    path, expected = tmp_path / "images" / f"a.{ending}", torch.tensor(bands / 65535).float()
    tifffile.imwrite(path, bands, photometric="rgb", planarconfig="contig")
    assert_close(image_of(tmp_path), expected.movedim(-1, 0))
    planes = np.moveaxis(bands, -1, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    assert_close(image_of(tmp_path), expected.movedim(-1, 0))


@pytest.mark.parametrize("low", [-0.5, 0.0])
def test_floats_are_in_0_to_1(tmp_path: Path, low: float) -> None:
    folder(tmp_path, "a")
    save(tmp_path / "images" / "a.npy", np.linspace(low, 1, H * W * 2).reshape(H, W, 2))
    if low == 0:
        assert image_of(tmp_path).max() == 1
    else:
        with pytest.raises(DataError, match=r"a.npy holds -0.5 to 1 with floats in 0..1; expected"):
            image_of(tmp_path)
    save(tmp_path / "images" / "a.npy", np.zeros((2, 2, 2, 2)))
    with pytest.raises(DataError, match=r"shape \(2, 2, 2, 2\) of float64; an image is \(H, W\)"):
        image_of(tmp_path)


# ------------------------------------------------------------------------------------ orientation


def oriented(path: Path, array: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_arrays_turn_as_pillow_turns_them(tmp_path: Path, orientation: int) -> None:
    array = pixels()
    oriented(tmp_path / "a.png", array, orientation)
    with Image.open(tmp_path / "a.png") as image:
        shown = np.asarray(ImageOps.exif_transpose(image))
    assert (turned(array, orientation) == shown).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("drawn_on", ["shown", "stored"])
def test_image_and_label_are_turned_as_shown(
    tmp_path: Path, orientation: int, drawn_on: str
) -> None:
    stored = np.zeros((H, W, 3), np.uint8)
    stored[1, 2] = 255
    folder(tmp_path, "a")
    oriented(tmp_path / "images" / "a.png", stored, orientation)
    mark = stored[..., 0] // 255
    save(tmp_path / "sal" / "a.png", turned(mark, orientation) if drawn_on == "shown" else mark)
    # Where sides swap the size tells; else it has to be said.
    said = None if orientation in (1, 5, 6, 7, 8) else drawn_on
    item = DenseFolder(tmp_path, "train", ["sal"], drawn_on=said)[0]
    assert item["meta"]["size"] == tuple(item["sal"].shape) == tuple(item["image"].shape[1:])
    assert torch.equal(item["image"][0], item["sal"].float()) and item["sal"].sum() == 1


@pytest.mark.parametrize(("orientation", "size"), [(3, (H, W)), (2, (H, W)), (6, (H, H))])
def test_where_nobody_can_tell_the_label_is_refused(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    folder(tmp_path, "a")
    oriented(tmp_path / "images" / "a.jpg", pixels(*size), orientation)
    save(tmp_path / "sal" / "a.png", np.resize(mask(0, 1), size))
    said = rf"a.jpg carries EXIF orientation {orientation}, and .*a.png doesn't say.*drawn_on='sho"
    with pytest.raises(DataError, match=said):
        DenseFolder(tmp_path, "train", ["sal"])[0]
    (tmp_path / "sal" / "a.png").unlink()
    assert DenseFolder(tmp_path, "train", ["sal"])[0]["image"].shape[1:] == size
    with pytest.raises(UnknownNameError, match="unknown drawn_on 'screen'"):
        DenseFolder(tmp_path, "train", ["sal"], drawn_on="screen")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_normals_that_turn_along_still_point_where_they_did(
    tmp_path: Path, orientation: int
) -> None:
    """They are those of the slopes of a height map, before and after."""
    height = torch.linspace(0, 1, H)[:, None] ** 2 + 0.3 * torch.linspace(0, 1, W) ** 3

    def normals_of(height: torch.Tensor) -> np.ndarray:
        down, right = torch.gradient(height)
        vectors = torch.stack([-right, down, torch.ones_like(down)], -1)  # y is up
        return torch.nn.functional.normalize(vectors, dim=-1).numpy()

    folder(tmp_path, "a")
    oriented(tmp_path / "images" / "a.png", pixels(), orientation)
    save(tmp_path / "normals" / "a.npy", normals_of(height))
    found = DenseFolder(tmp_path, "train", ["normals"], drawn_on="stored")[0]["normals"]
    shown = torch.tensor(turned(height.numpy(), orientation).copy())
    expected = torch.tensor(normals_of(shown)).movedim(-1, 0)
    if orientation != 1:
        assert_close(found, expected, atol=1e-5, rtol=0)


def test_labels_of_a_wrong_size_are_still_refused(tmp_path: Path) -> None:
    folder(tmp_path, "a")
    oriented(tmp_path / "images" / "a.png", pixels(), 6)
    save(tmp_path / "sal" / "a.png", np.ones((3, 3), np.uint8))
    with pytest.raises(DataError, match=rf"a.png is 3 x 3, its image {W} x {H} "):
        DenseFolder(tmp_path, "train", ["sal"])[0]
