"""Drafts of descriptions: made sets are described, and the draft reads them as the layout does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.testing import assert_close

from peft_dense.data import DescribedFolder, check_data, describe, make_archive, open_data
from peft_dense.data.described.toml import tomllib
from peft_dense.data.describing.draft import write_draft
from peft_dense.errors import DataError

H, W = 12, 16
rng = np.random.default_rng(0)


def photo(path: Path) -> None:
    save(path, rng.integers(0, 256, (H, W, 3), np.uint8))


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


def blocks(*values: object, dtype: type = np.uint8) -> np.ndarray:
    """A map of flat stripes, each of one value or colour."""
    array = np.array(values, dtype)
    return np.repeat(array[None].repeat(H, 0), -(-W // len(values)), 1)[:, :W]


def drafted(root: Path) -> dict:
    draft = describe(root)
    given = tomllib.loads(draft.text)
    write_draft(root, draft, overwrite=True)
    assert not check_data(root).problems
    return given


@pytest.mark.parametrize("layout", ["cityscapes", "ade20k", "voc", "coco_panoptic", "seven_scenes"])
def test_a_layout_that_is_known_is_called_by_its_name(tmp_path, layout):
    root = make_archive(tmp_path / "x", train=2, val=1, size=(32, 40), layout=layout)
    given = drafted(root)
    assert given == {"like": layout}


def test_a_dense_folder_is_drafted_with_its_names_and_lists(tmp_path):
    root = make_archive(tmp_path / "x", train=4, val=2, size=(32, 40), layout="folder")
    before = open_data(root, "val", ["semseg", "sal", "edge", "normals", "depth"])
    items = list(before)
    given = drafted(root)
    assert given["splits"] == {"train": "train.txt", "val": "val.txt"}
    assert given["tasks"]["semseg"]["classes"] == before.classes["semseg"]
    after = DescribedFolder(root, "val", before.tasks)
    for a, b in zip(items, after, strict=True):
        for task in before.tasks:
            assert_close(a[task], b[task])


def test_folders_of_splits_beside_one_another(tmp_path):
    for split, number in (("train", 4), ("test", 2)):
        for n in range(number):
            photo(tmp_path / split / f"00{n}_a.png")
            save(tmp_path / f"{split}annot" / f"00{n}_a.png", blocks(0, 3, 5))
    given = drafted(tmp_path)
    assert given["images"] == "{split}/{id}_a.png"
    assert given["splits"] == {
        "train": {"folder": "train"},
        "val": {"folder": "test"},
    }
    assert given["tasks"] == {"semseg": {"labels": "{split}annot/{id}_a.png", "classes": 6}}


def test_frames_of_sequences_in_one_folder_with_other_files(tmp_path):
    for seq in (1, 2):
        for n in range(6):
            stem = tmp_path / f"attic/seq-0{seq}/frame-{n:04d}"
            photo(Path(f"{stem}.color.png"))
            save(Path(f"{stem}.depth.png"), rng.integers(500, 4000, (H, W)).astype(np.uint16))
            Path(f"{stem}.pose.txt").write_text("1 0 0")
    given = drafted(tmp_path)
    assert given["images"] == "attic/{id}.color.png"
    assert given["tasks"] == {"depth": {"labels": "attic/{id}.depth.png", "unit": "mm"}}
    assert (
        len(DescribedFolder(tmp_path, "train").ids) + len(DescribedFolder(tmp_path, "val").ids)
        == 12
    )


def test_buildings_with_the_same_names_in_each(tmp_path):
    for building in ("ada", "bo", "cy", "di", "eve"):
        for n in range(2):
            photo(tmp_path / building / "rgb" / f"point_{n}_domain_rgb.png")
            n_label = np.zeros((H, W, 3), np.uint8) + np.array([127, 255, 127], np.uint8)
            save(tmp_path / building / "normal" / f"point_{n}_domain_normal.png", n_label)
    (tmp_path / "eve" / "rgb" / "point_0_domain_rgb.png").rename(tmp_path / "eve" / "rgb" / "x.png")
    given = tomllib.loads(describe(tmp_path / ".").text)
    if "like" not in given:  # the names are Taskonomy's
        raise AssertionError(given)
    for path in list(tmp_path.rglob("*_domain_*.png")):
        path.rename(path.with_name(path.name.replace("_domain", "")))
    (tmp_path / "eve" / "rgb" / "x.png").unlink()
    given = drafted(tmp_path)
    assert given["images"] == "{place}/rgb/{id}_rgb.png"
    assert given["tasks"]["normals"]["labels"] == "{place}/normal/{id}_normal.png"
    assert given["tasks"]["normals"]["axes"] == ["right", "up", "viewer"]


def test_kinds_are_told_by_what_files_hold(tmp_path):
    smooth = np.linspace(0, 255, H * W).reshape(H, W).astype(np.uint8)
    held = {
        "colours/{}.png": blocks([0, 0, 0], [200, 0, 0], [0, 0, 99]),
        "roofs/{}.png": blocks(0, 255),
        "edges/{}.png": blocks(0, 1),
        "saliency/{}.png": smooth,
        "far/{}.npy": rng.uniform(1, 9, (H, W)).astype(np.float32),
        "facing/{}.npy": np.stack([np.zeros((H, W)), np.ones((H, W)), np.zeros((H, W))], -1),
        "other/{}.png": smooth,
    }
    for n in range(5):
        photo(tmp_path / "photographs" / f"{n}.jpg")
        for place, array in held.items():
            save(tmp_path / place.format(n), array)
    draft = describe(tmp_path)
    tasks = tomllib.loads(draft.text)["tasks"]
    kinds = {each["labels"].split("/")[0]: (name, each.get("kind")) for name, each in tasks.items()}
    assert kinds == {
        "colours": ("semseg", None),
        "roofs": ("roofs", "binary"),
        "edges": ("edge", None),
        "saliency": ("sal", None),
        "far": ("depth", None),
        "facing": ("normals", None),
    }
    assert list(tasks["semseg"]["palette"].values()) == ["#000000", "#000063", "#c80000"]
    assert tasks["sal"]["threshold"] == 127
    assert any("other/{id}.png" in line and "left out" in line for line in draft.guessed)
    assert any("palette" in doubt for doubt in draft.doubts)


def test_lists_whose_lines_hold_paths(tmp_path):
    for n in range(6):
        photo(tmp_path / "rgb" / f"s{n}.png")
        save(tmp_path / "label" / f"s{n}.png", blocks(0, 1, 2))
    lists = {"train": range(4), "test": (4, 5)}
    for name, numbers in lists.items():
        lines = (f"/data/rgb/s{n}.png /data/label/s{n}.png\n" for n in numbers)
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    (tmp_path / "classes.txt").write_text("sky\nsea\nsand\n")
    given = drafted(tmp_path)
    assert given["tasks"]["semseg"]["classes"] == ["sky", "sea", "sand"]
    assert open_data(tmp_path, "train").ids == ["s0", "s1", "s2", "s3"]
    assert open_data(tmp_path, "val").ids == ["s4", "s5"]


def test_what_cannot_be_described(tmp_path):
    with pytest.raises(DataError, match="no folder .*nowhere"):
        describe(tmp_path / "nowhere")
    save(tmp_path / "label" / "a.png", blocks(0, 1))
    save(tmp_path / "label" / "b.png", blocks(0, 1))
    (tmp_path / "classes.json").write_text(json.dumps(3))
    with pytest.raises(
        DataError, match=r"nothing in .* looks like a folder of images: .*label/\{id\}"
    ):
        describe(tmp_path)


@pytest.mark.parametrize("layout", ["pascal", "nyud"])
def test_an_archive_with_a_loader_needs_no_description(tmp_path, layout):
    make_archive(tmp_path / "x", train=1, val=1, size=(32, 40), layout=layout)
    with pytest.raises(
        DataError, match=rf"multi-task archive \({layout}\), which is read as it is"
    ):
        describe(tmp_path / "x")


def test_a_file_that_is_there_stays(tmp_path):
    for n in range(3):
        photo(tmp_path / "rgb" / f"{n}.png")
        save(tmp_path / "mask" / f"{n}.png", blocks(0, 1))
    draft = describe(tmp_path)
    path = tmp_path / "dense.toml"
    path.write_text("mine")
    with pytest.raises(DataError, match="is there already and stays as it is; pass --overwrite"):
        write_draft(tmp_path, draft)
    assert path.read_text() == "mine"
    elsewhere = write_draft(tmp_path, draft, out=tmp_path / "rgb" / "other.toml")
    assert path.read_text() == "mine" and len(open_data(elsewhere, "train")) == 2
    write_draft(tmp_path, draft, overwrite=True)
    assert path.read_text() == draft.text


def test_labels_that_are_ignored_everywhere_are_left_out(tmp_path):
    for n in range(3):
        photo(tmp_path / "rgb" / f"{n}.png")
        save(tmp_path / "mask" / f"{n}.npy", blocks(65535, dtype=np.uint16))
        save(tmp_path / "label" / f"{n}.png", blocks(0, 1))
    guessed = "\n".join(describe(tmp_path).guessed)
    assert "left out: mask/{id}.npy (3 files; no value but 65535, of unknown meaning)" in guessed
