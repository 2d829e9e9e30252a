"""NYUDv2: an archive written by hand comes out label by label, in either mirror's formats."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.errors import DataError, UnknownNameError

SIZE = HEIGHT, WIDTH = 5, 8
TASKS = ("semseg", "normals", "depth", "edge")
RNG = np.random.default_rng(0)
SEMSEG = RNG.integers(0, 41, SIZE).astype(np.uint8)
NORMALS = RNG.normal(size=(*SIZE, 3)).astype(np.float32)
DEPTH = RNG.uniform(0.5, 10, SIZE).astype(np.float32)
EDGE = RNG.integers(0, 2, SIZE).astype(np.float32)
FILES = {
    "image": "images/7.jpg",
    "semseg": "segmentation/7.png",
    "normals": "normals/7.npy",
    "depth": "depth/7.npy",
    "edge": "edge/7.npy",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "NYUD_MT"
    for folder in ("images", "segmentation", "normals", "depth", "edge", "gt_sets"):
        (root / folder).mkdir(parents=True)
    (root / "gt_sets/train.txt").write_text("7\n")
    (root / "gt_sets/val.txt").write_text("7\n")
    Image.fromarray(RNG.integers(0, 256, (*SIZE, 3), np.uint8)).save(root / FILES["image"])
    Image.fromarray(SEMSEG).save(root / FILES["semseg"])
    normals, depth = NORMALS.copy(), DEPTH.copy()
    normals[0, 0] = depth[0, 0] = 0
    np.save(root / FILES["normals"], normals)
    np.save(root / FILES["depth"], depth)
    np.save(root / FILES["edge"], EDGE)
    return root


def unit(vectors: np.ndarray) -> torch.Tensor:
    vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return torch.tensor(vectors, dtype=torch.float32).movedim(-1, 0)


def test_items_hold_what_the_archive_holds(root: Path) -> None:
    data = NYUDv2(root, "val")
    assert data.ids == ["7"] and data.tasks == TASKS and len(data) == 1
    item = data[0]
    assert list(item) == ["image", *TASKS, "meta"] and item["meta"] == {"id": "7", "size": SIZE}
    pixels = torch.tensor(np.asarray(Image.open(root / FILES["image"]))).movedim(-1, 0)
    assert torch.equal((item["image"] * 255).round().byte(), pixels)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            expected = 255 if SEMSEG[y, x] == 0 else SEMSEG[y, x] - 1
            assert item["semseg"][y, x] == expected
    assert item["semseg"].dtype == item["edge"].dtype == torch.int64
    assert item["edge"].tolist() == EDGE.tolist()
    assert item["depth"].shape == (1, *SIZE) and item["normals"].shape == (3, *SIZE)
    assert item["depth"][0, 0, 0] == 0 and item["normals"][:, 0, 0].tolist() == [255] * 3
    assert_close(item["depth"][0, 1:], torch.tensor(DEPTH[1:]))
    assert_close(item["normals"][:, 1:], unit(NORMALS[1:]))


@pytest.mark.parametrize("shape", ["normals first", "depth last", "edge last", "bool"])
def test_other_shapes_of_the_same_arrays(root: Path, shape: str) -> None:
    expected = NYUDv2(root, "val")[0]
    moves = {
        "normals first": ("normals", lambda array: np.moveaxis(array, -1, 0)),
        "depth last": ("depth", lambda array: array[..., None]),
        "edge last": ("edge", lambda array: array[..., None]),
        "bool": ("edge", lambda array: array.astype(bool)),
    }
    task, move = moves[shape]
    np.save(root / FILES[task], move(np.load(root / FILES[task])))
    assert torch.equal(NYUDv2(root, "val", [task])[0][task], expected[task])


def test_the_mirror_with_images_for_labels(root: Path) -> None:
    arrays = {task: np.load(root / FILES[task]) for task in ("normals", "edge")}
    for task in ("normals", "edge", "image"):
        (root / FILES[task]).unlink()
    coded = np.round((unit(arrays["normals"][1:]).numpy() + 1) * 127.5).astype(np.uint8)
    coded = np.moveaxis(np.pad(coded, ((0, 0), (1, 0), (0, 0)), constant_values=200), 0, -1)
    Image.fromarray(coded).save(root / "normals/7.png")
    Image.fromarray((EDGE * 255).astype(np.uint8)).save(root / "edge/7.png")
    Image.fromarray(coded).save(root / "images/7.png")
    item = NYUDv2(root.rename(root.with_name("NYUDv2")).parent, "val")[0]
    assert item["edge"].tolist() == EDGE.tolist()
    assert_close(item["normals"], unit(coded / 127.5 - 1))
    assert_close(item["normals"][:, 1:], unit(NORMALS[1:]), atol=0.02, rtol=0)


def test_classes_are_the_40(root: Path) -> None:
    names = NYUDv2(root, "val").classes["semseg"]
    assert len(names) == len(set(names)) == 40
    assert (names[0], names[30], names[39]) == ("wall", "person", "otherprop")
    assert NYUDv2(root, "val", ["depth"]).classes == {}


def test_files_are_those_that_are_read(root: Path) -> None:
    files = NYUDv2(root.parent, "val").files("7")
    assert {task: str(path.relative_to(root)) for task, path in files.items()} == FILES
    (root / FILES["edge"]).unlink()
    assert "edge" not in NYUDv2(root, "val").files("7")


def test_nothing_is_written_and_it_can_be_sent(root: Path) -> None:
    before = [(path, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))]
    data = NYUDv2(root, "train", transform=dict)
    sent = pickle.loads(pickle.dumps(data))[0]
    assert all(torch.equal(sent[task], data[0][task]) for task in TASKS)
    assert before == [(path, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))]


# -------------------------------------------------------------------------------- bad input
def test_what_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder gt_sets in .*; it doesn't exist"):
        NYUDv2(tmp_path / "nowhere", "val")
    with pytest.raises(DataError, match=r"gt_sets/test.txt for split 'test'.*train, val"):
        NYUDv2(root, "test")
    with pytest.raises(UnknownNameError, match="unknown task 'sal'"):
        NYUDv2(root, "val", ["sal"])
    (root / "edge").rename(root / "elsewhere")
    with pytest.raises(DataError, match=r"no folder edge in .*'edge' needs; it holds .*elsewhere/"):
        NYUDv2(root, "val")


@pytest.mark.parametrize("task", FILES)
def test_missing_or_cut_file_is_named(root: Path, task: str) -> None:
    data, path = NYUDv2(root, "val"), root / FILES[task]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=rf"can't read .*{FILES[task]}"):
        data[0]
    path.unlink()
    with pytest.raises(DataError, match=rf"{FILES[task]}"):
        data[0]


@pytest.mark.parametrize("task", TASKS)
def test_label_of_another_size_names_both_files(root: Path, task: str) -> None:
    path = root / FILES[task]
    if task == "semseg":
        Image.fromarray(SEMSEG.T).save(path)
    else:
        np.save(path, np.swapaxes(np.load(path), 0, 1))
    expected = rf"{FILES[task]} is {WIDTH} x {HEIGHT}, its image {HEIGHT} x {WIDTH}.*images/7.jpg"
    with pytest.raises(DataError, match=expected):
        NYUDv2(root, "val", [task])[0]


def test_values_that_no_label_has(root: Path) -> None:
    Image.fromarray(np.full(SIZE, 41, np.uint8)).save(root / FILES["semseg"])
    with pytest.raises(DataError, match=r"segmentation/7.png holds 41; expected 0 to 40"):
        NYUDv2(root, "val", ["semseg"])[0]
    np.save(root / FILES["edge"], 2 * EDGE)
    with pytest.raises(DataError, match=r"edge/7.npy holds 2; edges are 0 or 1"):
        NYUDv2(root, "val", ["edge"])[0]
