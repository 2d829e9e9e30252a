"""DenseFolder: what is on disk is what comes out, and what can't be read is said clearly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from peft_dense.data import (
    Cached,
    Compose,
    DenseFolder,
    Pack,
    PadTo,
    RandomFlip,
    Resize,
    available_tasks,
    blank_item,
    collate,
)
from peft_dense.data.labels import read_label
from peft_dense.errors import DataError

HEIGHT, WIDTH = 5, 7
TASKS = ("semseg", "normals", "depth")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images, a and b; b has no semseg label, a's normals are a PNG and b's an array."""
    rng = np.random.default_rng(0)
    for folder in ("images", "semseg", "normals", "depth", "edge"):
        (tmp_path / folder).mkdir()
    (tmp_path / "train.txt").write_text("a\n\nb\n")
    (tmp_path / "val.txt").write_text("b\n")
    for name in ("a.png", "b.jpg"):
        save(tmp_path / "images" / name, rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    save(tmp_path / "semseg" / "a.png", rng.integers(0, 4, (HEIGHT, WIDTH), np.uint8))
    save(tmp_path / "normals" / "a.png", rng.integers(1, 250, (HEIGHT, WIDTH, 3), np.uint8))
    np.save(tmp_path / "normals" / "b.npy", 3 * rng.normal(size=(HEIGHT, WIDTH, 3)))
    np.save(tmp_path / "depth" / "a.npy", rng.uniform(1, 5, (HEIGHT, WIDTH)))
    save(tmp_path / "depth" / "b.png", rng.integers(0, 9000, (HEIGHT, WIDTH)).astype(np.uint16))
    return tmp_path


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_items_hold_what_the_files_hold(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS)
    assert len(data) == 2
    a, b = data[0], data[1]
    assert a["meta"] == {"id": "a", "size": (HEIGHT, WIDTH)}
    image = torch.tensor(read(root / "images" / "a.png") / 255, dtype=torch.float32)
    assert_close(a["image"], image.movedim(-1, 0))
    assert a["semseg"].dtype == torch.int64
    assert a["semseg"].tolist() == read(root / "semseg" / "a.png").tolist()
    assert_close(a["depth"][0], torch.tensor(np.load(root / "depth" / "a.npy")).float())
    assert_close(b["depth"][0] * 1000, torch.tensor(read(root / "depth" / "b.png")).float())
    assert b["image"].shape == b["normals"].shape == (3, HEIGHT, WIDTH)


def test_normals_come_out_unit_and_keep_their_direction(root: Path) -> None:
    a, b = DenseFolder(root, "train", ["normals"])
    coded = torch.tensor(read(root / "normals" / "a.png")).double() / 255 * 2 - 1
    for found, truth in ((a, coded), (b, torch.tensor(np.load(root / "normals" / "b.npy")))):
        n = found["normals"]
        valid = n[0] != 255
        assert valid.sum() > 0.8 * valid.numel()
        assert_close(n.norm(dim=0)[valid], torch.ones_like(n[0])[valid])
        cosine = torch.cosine_similarity(n.double(), truth.movedim(-1, 0), dim=0)
        assert cosine[valid].min() > 0.9999


@pytest.mark.parametrize("value", [0, 255, 127])
def test_normals_without_a_direction_are_ignored(root: Path, value: int) -> None:
    path = root / "normals" / "a.png"
    array = read(path).copy()
    array[0, 0] = value
    save(path, array)
    normals = DenseFolder(root, "train", ["normals"])[0]["normals"]
    assert normals[:, 0, 0].tolist() == [255] * 3
    np.save(root / "normals" / "b.npy", np.full((HEIGHT, WIDTH, 3), np.nan))
    assert (DenseFolder(root, "val", ["normals"])[0]["normals"] == 255).all()


def test_a_coded_normal_is_absent_only_if_all_of_it_is_0_or_255(root: Path) -> None:
    coded = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    few = [(0, 0, 0), (255, 255, 255), (0, 0, 200), (0, 200, 0), (200, 0, 0), (255, 255, 0)]
    coded[0, : len(few)] = few
    save(root / "normals" / "a.png", coded)
    normals = DenseFolder(root, "train", ["normals"])[0]["normals"][:, 0]
    assert (normals[0] == 255).tolist() == [True, True, False, False, False, False, False]


def test_depth_may_have_a_channel_of_its_own(root: Path) -> None:
    np.save(root / "depth" / "a.npy", np.full((HEIGHT, WIDTH, 1), 2.0))
    assert DenseFolder(root, "train", ["depth"])[0]["depth"].shape == (1, HEIGHT, WIDTH)


def test_a_label_that_is_read_alone_has_the_type_of_its_kind(root: Path) -> None:
    assert read_label(root / "semseg" / "a.png", "semseg").dtype == torch.int64
    assert read_label(root / "depth" / "b.png", "depth").dtype == torch.float32


def test_depth_that_is_not_finite_is_ignored(root: Path) -> None:
    array = np.full((HEIGHT, WIDTH), 2.0)
    array[0, :3] = np.nan, np.inf, -1
    np.save(root / "depth" / "a.npy", array)
    depth = DenseFolder(root, "train", ["depth"])[0]["depth"]
    assert depth[0, 0].tolist() == [0, 0, 0, 2, 2, 2, 2]


def test_a_missing_label_is_ignored_everywhere(root: Path) -> None:
    b = DenseFolder(root, "val", ["semseg", "edge"])[0]
    assert b["semseg"].dtype == b["edge"].dtype == torch.int64
    assert (b["semseg"] == 255).all() and (b["edge"] == 255).all()
    (root / "depth" / "b.png").unlink()
    (root / "normals" / "b.npy").unlink()
    b = DenseFolder(root, "val", ["depth", "normals"])[0]
    assert b["depth"].shape == (1, HEIGHT, WIDTH) and (b["depth"] == 0).all()
    assert b["normals"].shape == (3, HEIGHT, WIDTH) and (b["normals"] == 255).all()


def test_any_other_folder_is_a_map_of_classes(root: Path) -> None:
    (root / "materials").mkdir()
    np.save(root / "materials" / "b.npy", np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH))
    item = DenseFolder(root, "val", ["materials"])[0]
    assert item["materials"].dtype == torch.int64
    assert item["materials"].flatten().tolist() == list(range(HEIGHT * WIDTH))


def test_palette_images_give_indices_not_colours(root: Path) -> None:
    image = Image.fromarray(np.full((HEIGHT, WIDTH), 3, np.uint8)).convert("P")
    image.putpalette(list(range(256)) * 3)
    image.save(root / "semseg" / "b.png")
    assert (DenseFolder(root, "val", ["semseg"])[0]["semseg"] == 3).all()


def test_transform_gets_every_item(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS, transform=Resize((10, 4)))
    batch = collate([data[0], data[1]])
    assert batch["image"].shape == (2, 3, 10, 4) and batch["depth"].shape == (2, 1, 10, 4)
    assert [meta["id"] for meta in batch["meta"]] == ["a", "b"]


def test_cached_items_equal_read_ones_and_stay_what_they_are(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS)
    cached = Cached(data[index] for index in range(2))
    for index in range(2):
        cached[index]["semseg"].zero_()
        cached[index]["depth"].zero_()
        for name, value in data[index].items():
            found = cached[index][name]
            assert found == value if name == "meta" else torch.equal(found, value)
    flipped = Cached((data[index] for index in range(2)), RandomFlip(1.0))
    assert torch.equal(flipped[0]["semseg"], data[0]["semseg"].flip(-1))


def size_of(item: dict) -> int:
    """Bytes that an item takes when images and classes are bytes."""
    wide = {"depth": 4, "normals": 12}
    return HEIGHT * WIDTH * sum(3 if n == "image" else wide.get(n, 1) for n in item if n != "meta")


def test_what_is_kept_is_counted_in_bytes(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS)
    each = size_of(data[0])
    assert Cached(data).nbytes == 2 * each
    for budget, kept in ((2 * each, 2), (2 * each - 1, 1), (each, 1), (each - 1, 0)):
        cached = Cached(data, budget=budget)
        assert (cached.kept, cached.nbytes, len(cached)) == (kept, kept * each, 2)
        for index in (0, 1, -1):
            found, expected = cached[index], data[index]
            assert all(torch.equal(found[name], expected[name]) for name in ("image", *TASKS))
        assert cached.tasks == data.tasks and cached.kinds == data.kinds
    with pytest.raises(IndexError):
        cached[2]


def test_who_takes_bytes_gets_bytes_of_what_is_kept() -> None:
    image = (torch.arange(48) / 255).reshape(3, 4, 4)
    cached = Cached([{"image": image, "sal": torch.ones(4, 4, dtype=torch.int64)}])
    for transform, dtype in ((None, torch.float32), (RandomFlip(0), torch.float32)):
        cached.transform = transform
        assert cached[0]["image"].dtype == dtype
    cached.transform = Pack()
    assert cached[0]["image"].flatten().tolist() == list(range(48))
    seen = []
    cached.transform = Compose(lambda item: seen.append(item["image"].dtype) or item)
    cached.transform.takes_bytes = True
    cached[0]
    assert seen == [torch.uint8]


def test_what_cannot_be_read_has_the_kinds_of_the_others(root: Path) -> None:
    """So a map of 300 classes is padded with what ignores it."""
    data = DenseFolder(root, "train", ["semseg"], classes={"semseg": 300})
    blank = blank_item(data, (2, 2))
    assert (blank["semseg"] == 65535).all()
    assert (PadTo((4, 4))(blank)["semseg"] == 65535).all()


def test_items_alone_cannot_be_read_again(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS)
    items = (data[index] for index in range(2))
    with pytest.raises(DataError, match=r"0 items fill the 9 bytes .*Pass source="):
        Cached(items, budget=9)
    items = (data[index] for index in range(2))
    assert len(Cached(items, budget=9, source=data)) == 2


def test_images_that_bytes_cannot_hold_are_kept_as_they_are() -> None:
    items = [{"image": torch.rand(3, 4, 4), "meta": {}}, {"image": torch.zeros(5, 4, 4) + 0.2}]
    cached = Cached(items)
    assert cached.nbytes == 3 * 16 * 4 + 5 * 16
    for item, kept in zip(items, (cached[0], cached[1]), strict=True):
        assert torch.equal(item["image"], kept["image"])


def test_classes_are_those_of_the_file(root: Path) -> None:
    assert DenseFolder(root, "val", TASKS).classes == {}
    (root / "classes.json").write_text(json.dumps({"semseg": ["sky", "sea"]}))
    assert DenseFolder(root, "val", TASKS).classes == {"semseg": ["sky", "sea"]}
    (root / "classes.json").write_text("[1, 2")
    with pytest.raises(DataError, match=r"classes.json isn't JSON of the form"):
        _ = DenseFolder(root, "val", TASKS).classes


def test_files_are_those_that_are_read(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS)
    folders = {"a": ("images/a.png", "semseg/a.png", "normals/a.png", "depth/a.npy")}
    folders["b"] = ("images/b.jpg", "normals/b.npy", "depth/b.png")
    for name, expected in folders.items():
        files = data.files(name)
        assert list(files) == [
            task for task in ("image", *TASKS) if name == "a" or task != "semseg"
        ]
        assert [str(path.relative_to(root)) for path in files.values()] == list(expected)
    with pytest.raises(DataError, match="no image .*ghost"):
        data.files("ghost")


def test_available_tasks_are_the_label_folders(root: Path) -> None:
    assert available_tasks(root) == ["depth", "edge", "normals", "semseg"]


# ------------------------------------------------------------------------------------ bad input
def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder .*nowhere; pass the one that holds images/"):
        DenseFolder(tmp_path / "nowhere", "train", TASKS)


def test_missing_split_lists_the_others(root: Path) -> None:
    with pytest.raises(DataError, match=r"no list .*test.txt for split 'test'.*train, val"):
        DenseFolder(root, "test", TASKS)


def test_empty_split(root: Path) -> None:
    (root / "train.txt").write_text("\n")
    with pytest.raises(DataError, match=r"train.txt is empty; it lists one image id per line"):
        DenseFolder(root, "train", TASKS)


def test_unknown_task_offers_the_nearest(root: Path) -> None:
    expected = r"task 'semsge'.*did you mean 'semseg'\? It has: depth, edge, normals, semseg"
    with pytest.raises(DataError, match=expected):
        DenseFolder(root, "train", ["semsge"])


def test_missing_image(root: Path) -> None:
    (root / "val.txt").write_text("b\nghost\n")
    with pytest.raises(DataError, match=r"no image .*ghost.*take 'ghost' off the list"):
        DenseFolder(root, "val", TASKS)


@pytest.mark.parametrize("name", ["images/b.jpg", "normals/b.npy", "depth/b.png"])
def test_unreadable_file_is_named(root: Path, name: str) -> None:
    (root / name).write_bytes((root / name).read_bytes()[:40])
    with pytest.raises(DataError, match=rf"can't read .*{name}.*Is the file whole\?"):
        DenseFolder(root, "val", TASKS)[0]


def test_labels_alone_are_those_of_the_item(root: Path) -> None:
    data = DenseFolder(root, "train", TASKS)
    for index in range(2):
        item, labels = data[index], data.labels(index)
        assert set(labels) == set(item) - {"image"} and labels["meta"] == item["meta"]
        for task in TASKS:
            assert labels[task].dtype == item[task].dtype
            assert torch.equal(labels[task], item[task])


def test_normals_of_another_size(root: Path) -> None:
    np.save(root / "normals" / "b.npy", np.ones((WIDTH, HEIGHT, 3)))
    with pytest.raises(DataError, match=rf"b.npy is {WIDTH} x {HEIGHT}, its image {HEIGHT} x"):
        DenseFolder(root, "val", ["normals"])[0]


def test_label_of_another_size(root: Path) -> None:
    save(root / "semseg" / "b.png", np.zeros((WIDTH, HEIGHT), np.uint8))
    expected = (
        rf"semseg.b.png is {WIDTH} x {HEIGHT}, its image {HEIGHT} x {WIDTH} .*images.b.jpg.*nearest"
    )
    with pytest.raises(DataError, match=expected):
        DenseFolder(root, "val", TASKS)[0]


@pytest.mark.parametrize(
    ("task", "array", "expected"),
    [
        ("semseg", np.zeros((HEIGHT, WIDTH, 3)), "class labels are one channel"),
        ("semseg", np.full((HEIGHT, WIDTH), 0.5), "classes are whole numbers from 0"),
        ("semseg", np.full((HEIGHT, WIDTH), -1), "holds -1 to -1; classes are whole numbers"),
        ("semseg", np.full((HEIGHT, WIDTH), np.nan), "classes are whole numbers"),
        ("semseg", np.full((HEIGHT, WIDTH), "sky"), "one channel, .H, W., of numbers"),
        ("normals", np.zeros((HEIGHT, WIDTH)), "normals have three channels"),
        ("depth", np.zeros((HEIGHT, WIDTH, 3)), "depth is one channel"),
        ("depth", np.zeros((HEIGHT, WIDTH), np.uint8), "16-bit PNG in millimetres"),
    ],
)
def test_label_of_another_kind(root: Path, task: str, array: np.ndarray, expected: str) -> None:
    (root / "depth" / "b.png").unlink()
    np.save(root / task / "b.npy", array)
    with pytest.raises(DataError, match=expected):
        DenseFolder(root, "val", [task])[0]


def test_images_of_different_sizes_are_not_stacked() -> None:
    items = [{"image": torch.zeros(3, 4, width)} for width in (4, 6)]
    with pytest.raises(DataError, match=r"4 x 4 and 4 x 6 .*transform=Resize"):
        collate(items)
    items = [{"image": torch.zeros(channels, 4, 4)} for channels in (3, 1)]
    with pytest.raises(DataError, match=r"images of 1 and 3 channels can't be stacked; save all"):
        collate(items)
