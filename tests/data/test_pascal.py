"""PASCALContext: an archive written by hand comes out label by label, and stays as it is."""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from skimage.morphology import thin
from torch.utils.data import DataLoader

from peft_dense.data.sources import pascal_context as pascal
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.data.sources.pascal_labels import NORMALS_IDS, edges, has_normals, sal, semseg
from peft_dense.data.sources.pascal_parts import human_parts
from peft_dense.errors import DataError, MissingPackageError, UnknownNameError

SIZE = HEIGHT, WIDTH = 6, 9
TASKS = ("semseg", "human_parts", "sal", "normals", "edge")
VALID, INVALID = 9, 2  # a LabelMap's bag counts for normals, its aeroplane doesn't
RIDER, EMPTY = "2008_000002", "2008_000003"
FOLDERS = (
    *("JPEGImages", "ImageSets/Context", "pascal-context/trainval", "semseg/VOC12"),
    *("semseg/pascal-context", "human_parts", "normals_distill", "sal_distill"),
)


def struct(fields: str, rows: Sequence[tuple[Any, ...]]) -> np.ndarray:
    """What loadmat gives for a MATLAB struct array 1 x N, and savemat writes as one."""
    array = np.empty((1, len(rows)), [(field, object) for field in fields.split()])
    for index, row in enumerate(rows):
        array[0, index] = row
    return array


def parts(rows: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    return struct("part_name mask", rows) if rows else np.zeros((0, 0))


def save_anno(path: Path, objects: Sequence[tuple[Any, ...]]) -> None:
    held = struct("class class_ind mask parts", objects)
    savemat(path, {"anno": struct("imname objects", [(path.stem, held)])}, do_compression=True)


def save(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


HEAD, TORSO, ARM = box(0, 0, 2, 3), box(2, 0, 5, 4), box(1, 2, 4, 6)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A rider on a horse, and an image without parts of people."""
    root, rng = tmp_path / "PASCAL_MT", np.random.default_rng(0)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    lists = root / "ImageSets" / "Context"
    (lists / "train.txt").write_text(f"{RIDER}\n\n{EMPTY}\n")
    (lists / "val.txt").write_text(f"{EMPTY}\n")
    for name in (RIDER, EMPTY):
        save(root / f"JPEGImages/{name}.jpg", rng.integers(0, 256, (*SIZE, 3), np.uint8))
        save(root / f"semseg/pascal-context/{name}.png", np.full(SIZE, 7, np.uint8))
        save(root / f"normals_distill/{name}.png", rng.integers(0, 256, (*SIZE, 3), np.uint8))
        save(root / f"sal_distill/{name}.png", rng.integers(0, 256, SIZE, np.uint8))
        regions = {"LabelMap": np.where(TORSO, VALID, INVALID).astype(np.uint16)}
        savemat(root / f"pascal-context/trainval/{name}.mat", regions)
    save(root / f"semseg/VOC12/{RIDER}.png", np.where(TORSO, 15, 255).astype(np.uint8))
    horse = ("horse", 13, HEAD, parts([("head", box(5, 0, 6, 9))]))
    body = parts([("torso", TORSO), ("llarm", ARM), ("rebrow", HEAD)])
    save_anno(root / f"human_parts/{RIDER}.mat", [horse, ("person", 15, HEAD | TORSO, body)])
    save_anno(root / f"human_parts/{EMPTY}.mat", [horse, ("person", 15, HEAD, parts([]))])
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEFT_DENSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def listing(folder: Path) -> list[tuple[str, int, int]]:
    state = [(path, path.stat()) for path in sorted((folder, *folder.rglob("*")))]
    return [(str(path), at.st_size, at.st_mtime_ns) for path, at in state]


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert value == b[name] if name == "meta" else torch.equal(value, b[name])


# ------------------------------------------------------------------------------------ items
def test_items_hold_what_the_archive_holds(root: Path) -> None:
    data = PASCALContext(root, "train", TASKS)
    assert len(data) == 2 and data.ids == [RIDER, EMPTY] and data.split == "train"
    item = data[0]
    assert list(item) == ["image", *TASKS, "meta"] and data.tasks == TASKS
    assert item["meta"] == {"id": RIDER, "size": SIZE, "padding": "ignore"}
    pixels = np.asarray(Image.open(root / f"JPEGImages/{RIDER}.jpg"))
    assert torch.equal((item["image"] * 255).round().byte(), torch.tensor(pixels).movedim(-1, 0))
    assert item["image"].dtype == item["normals"].dtype == torch.float32
    for task in ("semseg", "human_parts", "sal", "edge"):
        assert item[task].shape == SIZE and item[task].dtype == torch.int64
    assert item["human_parts"].tolist() == [
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 4, 4, 4, 0, 0, 0],
        [2, 2, 4, 4, 4, 4, 0, 0, 0],
        [2, 2, 4, 4, 4, 4, 0, 0, 0],
        [2, 2, 2, 2, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    grey = np.asarray(Image.open(root / f"sal_distill/{RIDER}.png"))
    assert item["sal"].tolist() == (grey / 255 > 0.5).astype(int).tolist()


def test_default_tasks_are_the_papers_four(root: Path) -> None:
    assert PASCALContext(root, "val").tasks == ("semseg", "human_parts", "sal", "normals")


def test_voc12_comes_before_pascal_context(root: Path) -> None:
    first, second = PASCALContext(root, "train", ["semseg"])
    assert first["semseg"].tolist() == np.where(TORSO, 15, 255).tolist()
    assert (second["semseg"] == 7).all()


def test_without_an_annotated_person_part_all_is_ignored(root: Path) -> None:
    data = PASCALContext(root, "train", ["human_parts"])
    assert (data[1]["human_parts"] == 255).all() and data[1]["human_parts"].shape == SIZE
    assert data.has_parts(RIDER) and not data.has_parts(EMPTY)


@pytest.mark.parametrize(("protocol", "padding"), [("atrc", "ignore"), ("astmt", "background")])
def test_protocol_says_what_transforms_pad_with(root: Path, protocol: str, padding: str) -> None:
    data = PASCALContext(root, "val", ["sal"], protocol=protocol)
    assert data[0]["meta"]["padding"] == padding


def test_unknown_protocol_and_task(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="protocol 'atcr'; did you mean 'atrc'"):
        PASCALContext(root, "val", protocol="atcr")
    with pytest.raises(UnknownNameError, match="task 'depth'.*Known: edge, human_parts, normals"):
        PASCALContext(root, "val", ["depth"])


def test_root_may_be_the_archive_or_above_it_by_either_name(root: Path) -> None:
    expected = PASCALContext(root, "val", TASKS)[0]
    assert_same(PASCALContext(str(root.parent), "val", TASKS)[0], expected)
    other = root.rename(root.parent / "PASCALContext")
    for folder in (other, other.parent):
        data = PASCALContext(folder, "val", TASKS)
        assert data.root == other
        assert_same(data[0], expected)


def test_classes_are_those_of_the_tasks(root: Path) -> None:
    classes = PASCALContext(root, "val").classes
    assert classes["semseg"][15] == "person" and len(classes["semseg"]) == 21
    assert classes["human_parts"][6] == "lower leg" and len(classes["human_parts"]) == 7
    assert PASCALContext(root, "val", ["edge"]).classes == {}


def test_files_are_those_that_are_read(root: Path) -> None:
    data = PASCALContext(root, "train", TASKS)
    assert {task: str(path.relative_to(root)) for task, path in data.files(RIDER).items()} == {
        "image": f"JPEGImages/{RIDER}.jpg",
        "semseg": f"semseg/VOC12/{RIDER}.png",
        "human_parts": f"human_parts/{RIDER}.mat",
        "sal": f"sal_distill/{RIDER}.png",
        "normals": f"normals_distill/{RIDER}.png",
        "edge": f"pascal-context/trainval/{RIDER}.mat",
    }
    assert data.files(EMPTY)["semseg"] == root / f"semseg/pascal-context/{EMPTY}.png"
    (root / f"sal_distill/{RIDER}.png").unlink()
    assert "sal" not in data.files(RIDER)


def test_transform_gets_every_item(root: Path) -> None:
    data = PASCALContext(root, "val", TASKS, transform=lambda item: {"meta": item["meta"]})
    assert data[0] == {"meta": {"id": EMPTY, "size": SIZE, "padding": "ignore"}}


# ----------------------------------------------------------------------------------- labels
SIX = {
    **dict.fromkeys(["head", "hair", "lear", "rear", "leye", "reye"], 1),
    **dict.fromkeys(["lebrow", "rebrow", "nose", "mouth"], 1),
    **dict.fromkeys(["torso", "neck"], 2),
    **dict.fromkeys(["luarm", "ruarm"], 3),
    **dict.fromkeys(["llarm", "rlarm", "lhand", "rhand"], 4),
    **dict.fromkeys(["luleg", "ruleg"], 5),
    **dict.fromkeys(["llleg", "rlleg", "lfoot", "rfoot"], 6),
}
masks = st.integers(0, 2**16).map(lambda seed: np.random.default_rng(seed).random(SIZE) < 0.3)
bodies = st.lists(st.tuples(st.sampled_from(sorted(SIX)), masks), max_size=4)
crowds = st.lists(st.tuples(st.sampled_from([15, 15, 13]), bodies), max_size=3)


def nested_cells(rows: Sequence[np.ndarray]) -> np.ndarray:
    cells = np.empty((1, len(rows)), object)
    for index, row in enumerate(rows):
        cells[0, index] = row
    return cells


WRAPPINGS: dict[str, Callable[[np.ndarray], Any]] = {
    "1 x N struct": lambda array: array,
    "N x 1 struct": lambda array: array.T,
    "cell of structs": lambda array: nested_cells([array[:, [i]] for i in range(array.size)]),
    "struct in a cell": lambda array: nested_cells([array]),
}


@given(
    crowds, st.sampled_from([np.uint8, bool, np.float64]), st.sampled_from(list(WRAPPINGS.values()))
)
@settings(max_examples=80, deadline=None)
def test_human_parts_equal_drawing_pixel_by_pixel(
    crowd: Any, dtype: type, wrap: Callable[[np.ndarray], Any]
) -> None:
    expected = [[0] * WIDTH for _ in range(HEIGHT)]
    annotated = False
    for index, body in crowd:
        for name, mask in body if index == 15 else []:
            annotated = True
            for y, x in np.argwhere(mask):
                expected[y][x] = SIX[name]
    objects = struct(
        "class class_ind mask parts",
        [
            ("?", index, HEAD, wrap(parts([(name, mask.astype(dtype)) for name, mask in body])))
            for index, body in crowd
        ],
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mat")
        savemat(path, {"anno": struct("imname objects", [("a", wrap(objects))])})
        found = human_parts(path)
    assert found.tolist() == (expected if annotated else [[255]])


def test_fields_under_other_names_go_by_their_place(tmp_path: Path) -> None:
    part = struct("a b", [("lhand", ARM)])
    one = struct("a b c d", [("person", 15, ARM, part)])
    savemat(tmp_path / "a.mat", {"anno": struct("a b", [("a", one)])})
    assert human_parts(tmp_path / "a.mat").tolist() == (4 * ARM).tolist()


maps = st.integers(0, 2**16).map(
    lambda seed: np.random.default_rng(seed).choice([2, 3, 4, 300, 459], SIZE)
)


@given(maps, st.sampled_from([np.uint16, np.uint8, np.float64]))
@settings(max_examples=40, deadline=None)
def test_edges_equal_a_laplacian_written_out(ids: np.ndarray, dtype: type) -> None:
    ids = ids.astype(dtype)
    edge = np.zeros(SIZE, bool)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            laplacian = -4 * int(ids[y, x])
            for to_y, to_x in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                to_y, to_x = abs(to_y), abs(to_x)  # mirrored: -1 is 1
                to_y = HEIGHT - 2 if to_y == HEIGHT else to_y
                to_x = WIDTH - 2 if to_x == WIDTH else to_x
                laplacian += int(ids[to_y, to_x])
            edge[y, x] = laplacian != 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.mat")
        savemat(path, {"LabelMap": ids})
        assert edges(path).tolist() == thin(edge).astype(int).tolist()
        assert has_normals(path).tolist() == np.isin(ids, NORMALS_IDS).astype(int).tolist()


def test_edges_of_two_halves_are_a_line(tmp_path: Path) -> None:
    halves = np.zeros(SIZE, np.uint16)
    halves[:, 4:] = 459
    savemat(tmp_path / "a.mat", {"LabelMap": halves})
    found = edges(tmp_path / "a.mat")
    assert set(np.argwhere(found)[:, 1]) < {3, 4}
    assert (found[1:].sum(1) == 1).all() and found[0].sum() <= 1  # thinning may eat an end


def test_normals_count_on_170_classes() -> None:
    assert len(set(NORMALS_IDS)) == 170 and 427 in NORMALS_IDS
    assert list(NORMALS_IDS) == sorted(NORMALS_IDS)
    assert min(NORMALS_IDS) >= 1 and max(NORMALS_IDS) <= 459


def test_normals_are_unit_vectors_where_they_count_and_255_elsewhere(root: Path) -> None:
    normals = PASCALContext(root, "train", ["normals"])[0]["normals"]
    coded = np.asarray(Image.open(root / f"normals_distill/{RIDER}.png"))
    assert normals.shape == (3, *SIZE)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            found = normals[:, y, x].double().numpy()
            if TORSO[y, x]:
                vector = 2 * coded[y, x].astype(float) / 255 - 1
                np.testing.assert_allclose(found, vector / np.linalg.norm(vector), atol=1e-6)
            else:
                assert found.tolist() == [255] * 3


def test_grey_has_no_normal(root: Path) -> None:
    save(root / f"normals_distill/{EMPTY}.png", np.full((*SIZE, 3), 127, np.uint8))
    assert (PASCALContext(root, "val", ["normals"])[0]["normals"] == 255).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1"])
def test_salient_is_over_half_of_255(tmp_path: Path, mode: str) -> None:
    grey = np.array([[0, 127, 128, 255]] if mode != "1" else [[0, 0, 255, 255]], np.uint8)
    image = Image.fromarray(grey)
    if mode == "P":  # index 0 is white, 255 black
        image = Image.fromarray(255 - grey)
        image.putpalette([v for grey in range(255, -1, -1) for v in (grey, grey, grey)])
    image.convert(mode).save(tmp_path / "a.png")
    assert sal(tmp_path / "a.png").tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("palette", [False, True])
def test_semseg_is_the_index_with_or_without_a_palette(tmp_path: Path, palette: bool) -> None:
    index = np.array([[0, 1, 20, 255]], np.uint8)
    image = Image.fromarray(index)
    if palette:
        image.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
    image.save(tmp_path / "a.png")
    assert semseg(tmp_path / "a.png").tolist() == index.tolist()


# ------------------------------------------------------------------------ the data, the cache
def test_nothing_is_written_into_the_archive(root: Path, cache: Path) -> None:
    for path in root.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = listing(root)
    try:
        for split in ("train", "val"):
            list(PASCALContext(root, split, TASKS))
        assert listing(root) == before
        assert list(cache.rglob("*.png"))
    finally:
        for path in root.rglob("*"):
            path.chmod(0o755)


def test_computed_labels_are_kept_and_kept_ones_are_the_same(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = list(PASCALContext(root, "train", TASKS, cache=False))
    assert not cache.exists()
    first = list(PASCALContext(root, "train", TASKS))
    assert len(list(cache.rglob("*.png"))) == 3 * len(first)

    def computed(path: Path) -> np.ndarray:
        raise AssertionError(f"{path} was computed again")

    for function in ("human_parts", "edges", "has_normals"):
        monkeypatch.setattr(pascal, function, computed)
    again = list(PASCALContext(root.parent, "train", TASKS))
    for a, b, c in zip(without, first, again, strict=True):
        assert_same(a, b)
        assert_same(a, c)
    save_anno(root / f"human_parts/{RIDER}.mat", [])
    with pytest.raises(AssertionError, match=r"human_parts.*mat was computed again"):
        PASCALContext(root, "train", TASKS)[0]


def test_a_folder_for_the_cache_may_be_named(root: Path, cache: Path, tmp_path: Path) -> None:
    PASCALContext(root, "val", TASKS, cache=tmp_path / "mine")[0]
    assert len(list((tmp_path / "mine").rglob("*.png"))) == 3 and not cache.exists()


def test_tasks_that_need_no_computing_need_no_cache(root: Path, cache: Path) -> None:
    list(PASCALContext(root, "train", ["semseg", "sal"]))
    assert not cache.exists()


def test_workers_give_the_same_items(root: Path) -> None:
    data = PASCALContext(root, "train", TASKS)
    first, second = DataLoader(data, batch_size=None, num_workers=2, collate_fn=dict)
    sent = pickle.loads(pickle.dumps(data))  # what spawned workers get
    assert_same(first, data[0])
    assert_same(second, data[1])
    assert_same(sent[1], data[1])


# -------------------------------------------------------------------------------- bad input
def test_no_archive_says_what_there_is(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder ImageSets/Context in .*; it doesn't exist"):
        PASCALContext(tmp_path / "nowhere", "train")
    (root / "ImageSets/Context").rename(root / "lists")
    with pytest.raises(DataError, match=r"no folder ImageSets/Context.*it holds .*human_parts/, "):
        PASCALContext(root, "train")


def test_missing_split_lists_the_others(root: Path) -> None:
    with pytest.raises(DataError, match=r"Context/test.txt for split 'test'.*: train, val\."):
        PASCALContext(root, "test")


@pytest.mark.parametrize(
    ("task", "folder"),
    [
        ("human_parts", "human_parts"),
        ("normals", "normals_distill"),
        ("normals", "pascal-context/trainval"),
        ("edge", "pascal-context/trainval"),
        ("sal", "sal_distill"),
    ],
)
def test_missing_folder_of_a_task(root: Path, task: str, folder: str) -> None:
    (root / folder).rename(root / "elsewhere")
    expected = rf"no folder {folder} in .*'{task}' needs; it holds .*elsewhere/.*semseg/"
    with pytest.raises(DataError, match=expected):
        PASCALContext(root, "val", [task])
    PASCALContext(root, "val", ["semseg"])


def test_one_folder_of_semseg_is_enough(root: Path) -> None:
    (root / "semseg/VOC12").rename(root / "elsewhere")
    assert (PASCALContext(root, "train", ["semseg"])[0]["semseg"] == 7).all()
    (root / "semseg/pascal-context").rename(root / "elsewhere too")
    with pytest.raises(DataError, match=r"no folder semseg/VOC12 or semseg/pascal-context in"):
        PASCALContext(root, "train", ["semseg"])


FILES = {
    "image": f"JPEGImages/{EMPTY}.jpg",
    "semseg": f"semseg/pascal-context/{EMPTY}.png",
    "human_parts": f"human_parts/{EMPTY}.mat",
    "normals": f"normals_distill/{EMPTY}.png",
    "sal": f"sal_distill/{EMPTY}.png",
    "edge": f"pascal-context/trainval/{EMPTY}.mat",
}
NEEDED = [*FILES.items(), ("normals", FILES["edge"])]


@pytest.mark.parametrize(("task", "file"), NEEDED)
def test_missing_file_is_named(root: Path, task: str, file: str) -> None:
    data = PASCALContext(root, "val", ["sal" if task == "image" else task])
    (root / file).unlink()
    with pytest.raises(DataError, match=rf"{file}"):
        data[0]


@pytest.mark.parametrize(("task", "file"), NEEDED)
def test_a_cut_file_is_named_or_gives_the_same_item(root: Path, task: str, file: str) -> None:
    data = PASCALContext(root, "val", ["sal" if task == "image" else task], cache=False)
    whole, expected, said = (root / file).read_bytes(), data[0], []
    for length in {0, *np.linspace(1, len(whole) - 1, 40).astype(int).tolist()}:
        (root / file).write_bytes(whole[:length])
        try:
            assert_same(data[0], expected)  # Pillow does without the last bytes of an image
        except DataError as error:
            said.append(str(error))
    assert len(said) > 20 and all(str(root / file) in message for message in said)


def test_a_changed_byte_of_a_packed_struct_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reached = root / FILES["human_parts"], []
    whole = path.read_bytes()
    monkeypatch.setattr("scipy.io.loadmat", reached.append)  # it can crash on such a file
    for at in range(136, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(DataError, match=rf"can't read .*{EMPTY}.mat"):
            human_parts(path)
    assert not reached


def test_without_scipy_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingPackageError, match=r"reading .*\.mat needs scipy.*peft-dense.train"):
        human_parts(root / FILES["human_parts"])


@pytest.mark.parametrize(("task", "file"), NEEDED[1:])
def test_label_of_another_size_names_both_files(root: Path, task: str, file: str) -> None:
    turned = np.ones((WIDTH, HEIGHT), np.uint8)
    if task == "human_parts":
        save_anno(root / file, [("person", 15, turned, parts([("head", turned)]))])
    elif file.endswith(".mat"):
        savemat(root / file, {"LabelMap": turned})
    else:
        save(root / file, np.stack([turned] * 3, -1) if task == "normals" else turned)
    expected = rf"{file} is {WIDTH} x {HEIGHT}, its image {HEIGHT} x {WIDTH} .*{FILES['image']}"
    with pytest.raises(DataError, match=expected):
        PASCALContext(root, "val", [task])[0]


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([("person", 15, HEAD, parts([("tail", HEAD)]))], "part 'tail'; expected one of head"),
        ([("person", 15, HEAD, parts([("head", HEAD.T), ("nose", HEAD)]))], "(9, 6) and (6, 9)"),
        ([("person", 15, HEAD, np.ones((2, 2)))], "float64 of shape (2, 2) in the place of"),
        ([("person", 15, HEAD, parts([("head", HEAD[None])]))], "in the place of a mask"),
        ([("person", [15, 13], HEAD, parts([]))], "array of shape (1, 2) in the place of one"),
    ],
)
def test_a_struct_of_another_kind(tmp_path: Path, objects: Any, expected: str) -> None:
    save_anno(tmp_path / "a.mat", objects)
    with pytest.raises(DataError) as caught:
        human_parts(tmp_path / "a.mat")
    assert expected in str(caught.value) and str(tmp_path / "a.mat") in str(caught.value)


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"masks": HEAD})
    with pytest.raises(DataError, match=r"a.mat holds masks; expected a variable 'anno'"):
        human_parts(tmp_path / "a.mat")
    with pytest.raises(DataError, match=r"a.mat holds masks; expected a variable 'LabelMap'"):
        edges(tmp_path / "a.mat")
    save(tmp_path / "a.png", np.array([[3, 21, 99]], np.uint8))
    with pytest.raises(DataError, match=r"a.png holds 21, 99; classes are 0 to 20, 255"):
        semseg(tmp_path / "a.png")
    save(tmp_path / "a.png", np.full(SIZE, 40000, np.uint16))
    with pytest.raises(DataError, match=r"a.png has pixels of mode I;16; expected L"):
        sal(tmp_path / "a.png")
