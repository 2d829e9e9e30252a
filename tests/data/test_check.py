"""Checking a data set: every problem is named, nothing else is, and counts are those of pixels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat

from peft_dense.data.checking.check import Report, check_data
from peft_dense.data.checking.picture import TILE, draw_samples
from peft_dense.data.checking.tally import Tally
from peft_dense.data.labels import Item
from peft_dense.data.made.archive import make_archive, scenes_of
from peft_dense.data.made.scenes import CLASSES
from peft_dense.errors import DataError, ShapeError, UnknownNameError

SCENES = {"train": 3, "val": 3, "size": (40, 48), "seed": 1}
IN = {
    "semseg": "semseg/VOC12/{}.png",
    "human_parts": "human_parts/{}.mat",
    "sal": "sal_distill/{}.png",
    "normals": "normals_distill/{}.png",
    "regions": "pascal-context/trainval/{}.mat",
    "image": "JPEGImages/{}.jpg",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound data set of each layout; its root."""
    base = tmp_path_factory.mktemp("whole")
    for layout in ("pascal", "nyud", "folder"):
        make_archive(base / layout, **SCENES, layout=layout)
    return {layout: base / layout for layout in ("pascal", "nyud", "folder")}


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {"train": [], "val": []}
    for split, _, item in scenes_of(*SCENES.values()):
        found[split].append(item)
    return found


@pytest.fixture
def root(whole: dict[str, Path], tmp_path: Path) -> Path:
    """A PASCAL archive that may be broken."""
    return shutil.copytree(whole["pascal"], tmp_path / "root") / "PASCAL_MT"


@pytest.fixture
def folder(whole: dict[str, Path], tmp_path: Path) -> Path:
    """A DenseFolder that may be broken."""
    return shutil.copytree(whole["folder"], tmp_path / "folder")


def ids(root: Path, split: str) -> list[str]:
    return next(root.rglob(f"*{split}.txt")).read_text().split()


def found(report: Report) -> list[tuple[str, str, str, str]]:
    return [(one.kind, one.split, one.id, one.about) for one in report.problems]


def grow(path: Path) -> None:
    """Make a label one row taller."""
    array = np.asarray(Image.open(path))
    Image.fromarray(np.concatenate([array, array[-1:]])).save(path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def grow_regions(path: Path) -> None:
    regions = loadmat(path)["LabelMap"]
    savemat(path, {"LabelMap": np.concatenate([regions, regions[-1:]])})


def forget_regions(path: Path) -> None:
    savemat(path, {"Labels": np.zeros((2, 2))})


def write_values(path: Path) -> None:
    """Put a class that isn't there into a label."""
    array = np.array(Image.open(path))
    array[0, 0] = 77
    Image.fromarray(array).save(path)


# ---------------------------------------------------------------------- sound ones


@pytest.mark.parametrize("layout", ["pascal", "nyud", "folder"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_sound_data_set_has_no_problems(whole, layout, workers):
    report = check_data(whole[layout], workers=workers)
    assert report.problems == []
    assert report.layout == layout and report.images == {"train": 3, "val": 3}
    assert report.as_dict()["sound"] is True


def test_counts_are_those_of_pixels(whole, scenes):
    report = check_data(whole["folder"])
    for split, items in scenes.items():
        labels = report.as_dict()["labels"][split]
        semseg = torch.cat([item["semseg"].flatten() for item in items])
        for index, name in enumerate(CLASSES):
            share = (semseg == index).float().mean().item()
            images = sum((item["semseg"] == index).any().item() for item in items)
            assert labels["semseg"]["classes"][name]["share"] == pytest.approx(share, abs=1e-6)
            assert labels["semseg"]["classes"][name]["images"] == images
        without = sum((item["human_parts"] == 255).all().item() for item in items)
        assert labels["human_parts"]["without_label"] == without
        assert labels["human_parts"]["labelled"] == len(items) - without
        assert labels["semseg"]["ignored"] == labels["human_parts"]["ignored"] == 0
        depth = torch.cat([item["depth"].flatten() for item in items])
        low, high = depth.min().item(), depth.max().item()
        assert labels["depth"]["range"] == pytest.approx([low, high], abs=0.001)
        towards = torch.cat([item["normals"][2].flatten() for item in items]) > 0
        assert labels["normals"]["towards_viewer"] == pytest.approx(
            towards.float().mean().item(), abs=0.01
        )
    assert sum(tally["human_parts"].absent for tally in report.tallies.values()) > 0


def test_ignored_pixels_are_counted(whole):
    report = check_data(whole["pascal"], splits=["val"])
    semseg = whole["pascal"] / "PASCAL_MT" / "semseg"
    names = ids(whole["pascal"], "Context/val")
    labels = [np.asarray(Image.open(next(semseg.glob(f"*/{name}.png")))) for name in names]
    ignored, pixels = sum((label == 255).sum() for label in labels), sum(map(np.size, labels))
    assert report.tallies["val"]["semseg"].as_dict()["ignored"] == pytest.approx(ignored / pixels)
    parts = report.as_dict()["labels"]["val"]["human_parts"]
    assert parts["labelled"] + parts["wholly_ignored"] == 3 and parts["without_label"] == 0


def test_tasks_and_lists_can_be_chosen(whole):
    report = check_data(whole["pascal"], splits=["val"], tasks=["sal", "edge"])
    assert list(report.images) == ["val"] and list(report.tallies["val"]) == ["sal", "edge"]


def test_nothing_is_written(whole, monkeypatch, tmp_path):
    monkeypatch.setenv("PEFT_DENSE_CACHE", str(tmp_path / "cache"))
    before = {path: path.stat().st_mtime_ns for path in whole["pascal"].rglob("*")}
    check_data(whole["pascal"])
    assert before == {path: path.stat().st_mtime_ns for path in whole["pascal"].rglob("*")}
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- broken ones


@pytest.mark.parametrize(
    ("what", "spoil", "kind", "about"),
    [
        ("image", cut, "unreadable", ["image"]),
        ("image", Path.unlink, "missing", ["image"]),
        ("semseg", cut, "unreadable", ["semseg"]),
        ("semseg", Path.unlink, "missing", ["semseg"]),
        ("semseg", grow, "size", ["semseg"]),
        ("semseg", write_values, "values", ["semseg"]),
        ("human_parts", cut, "unreadable", ["human_parts"]),
        ("human_parts", Path.unlink, "missing", ["human_parts"]),
        ("sal", cut, "unreadable", ["sal"]),
        ("sal", grow, "size", ["sal"]),
        ("normals", Path.unlink, "missing", ["normals"]),
        ("normals", grow, "size", ["normals"]),
        ("regions", cut, "unreadable", ["normals", "edge"]),
        ("regions", Path.unlink, "missing", ["normals", "edge"]),
        ("regions", grow_regions, "size", ["normals", "edge"]),
        ("regions", forget_regions, "values", ["normals", "edge"]),
    ],
)
def test_a_spoilt_file_is_named_and_nothing_else(
    root: Path, what: str, spoil: Callable[[Path], None], kind: str, about: list[str]
):
    name = ids(root, "Context/train")[1]
    path = root / IN[what].format(name)
    spoil(path)
    report = check_data(root)
    assert found(report) == [(kind, "train", name, task) for task in about]
    assert all(path.name in one.reason for one in report.problems)
    lost = report.tallies["train"] if what == "image" else about
    for task, tally in report.tallies["train"].items():
        assert tally.images == (2 if task in lost else 3), task
    assert report.as_dict()["sound"] is False


def test_one_problem_hides_no_other(root):
    first, second, third = ids(root, "Context/train")
    cut(root / IN["image"].format(first))
    for what in ("semseg", "sal", "human_parts"):
        (root / IN[what].format(second)).unlink()
    grow(root / IN["normals"].format(third))
    cut(root / IN["human_parts"].format(third))
    (root / IN["image"].format(ids(root, "Context/val")[2])).unlink()
    assert sorted(found(check_data(root))) == sorted(
        [
            ("unreadable", "train", first, "image"),
            *(("missing", "train", second, what) for what in ("semseg", "human_parts", "sal")),
            ("size", "train", third, "normals"),
            ("unreadable", "train", third, "human_parts"),
            ("missing", "val", ids(root, "Context/val")[2], "image"),
        ]
    )


def test_a_spoilt_label_is_found_with_its_task_alone(root):
    name = ids(root, "Context/val")[0]
    cut(root / IN["sal"].format(name))
    assert found(check_data(root, tasks=["sal"])) == [("unreadable", "val", name, "sal")]
    assert check_data(root, tasks=["semseg"]).problems == []


def test_a_missing_folder_of_labels_is_one_problem(root):
    shutil.rmtree(root / "sal_distill")
    report = check_data(root)
    assert found(report) == [("missing", "", "", "sal")]
    assert set(report.tallies["train"]) == {"semseg", "human_parts", "normals", "edge"}


def test_a_missing_or_empty_list_is_a_problem_unless_it_was_asked_for(root):
    (root / "ImageSets" / "Context" / "val.txt").unlink()
    report = check_data(root)
    assert found(report) == [("list", "val", "", "list")] and "val.txt" in report.problems[0].reason
    with pytest.raises(DataError, match="no list .*val.txt"):
        check_data(root, splits=["val"])
    (root / "ImageSets" / "Context" / "val.txt").write_text("\n")
    assert found(check_data(root)) == [("list", "val", "", "list")]


def test_ids_that_stand_in_lists_twice(folder):
    (train, *_), (val, *_) = ids(folder, "train"), ids(folder, "val")
    with (folder / "train.txt").open("a") as file:
        file.write(f"{train}\n{val}\n")
    report = check_data(folder)
    assert found(report) == [("list", "train", train, "list"), ("list", "val", val, "list")]
    assert (
        "2 times" in report.problems[0].reason and "'train' and 'val'" in report.problems[1].reason
    )
    assert report.images == {"train": 5, "val": 3}


# ---------------------------------------------------------------------- DenseFolder


def test_a_folder_may_lack_labels_but_not_images(folder):
    first, second, third = ids(folder, "train")
    before = check_data(folder).tallies["train"]["sal"].absent
    (folder / "sal" / f"{first}.png").unlink()
    (folder / "images" / f"{second}.jpg").unlink()
    (folder / "images" / f"{third}.jpg").write_bytes(b"no image")
    report = check_data(folder)
    assert found(report) == [
        ("missing", "train", second, "image"),
        ("unreadable", "train", third, "image"),
    ]
    assert report.tallies["train"]["sal"].absent == before + 1


def test_an_absent_label_beside_a_spoilt_one_is_no_problem(folder):
    name = ids(folder, "train")[0]
    (folder / "sal" / f"{name}.png").unlink()
    grow(folder / "semseg" / f"{name}.png")
    report = check_data(folder)
    assert found(report) == [("size", "train", name, "semseg")]
    assert report.tallies["train"]["sal"].absent == 1 and report.tallies["train"]["sal"].images == 2


def test_values_are_held_against_the_names_of_the_classes(folder):
    name = ids(folder, "val")[0]
    write_values(folder / "semseg" / f"{name}.png")
    write_values(folder / "sal" / f"{name}.png")
    report = check_data(folder)
    assert found(report) == [("values", "val", name, "semseg"), ("values", "val", name, "sal")]
    assert "holds class 77; " in report.problems[0].reason
    (folder / "classes.json").unlink()  # without names any class can be
    report = check_data(folder)
    assert found(report) == [("values", "val", name, "sal")]
    assert report.as_dict()["labels"]["val"]["semseg"]["classes"]["class 77"]["images"] == 1


def test_a_folder_without_val_is_sound(folder):
    (folder / "val.txt").unlink()
    report = check_data(folder)
    assert report.problems == [] and list(report.images) == ["train"]


def test_own_tasks_are_maps_of_classes(folder):
    shutil.copytree(folder / "semseg", folder / "materials")
    counts = check_data(folder, tasks=["materials"]).as_dict()["labels"]["val"]["materials"]
    semseg = check_data(folder, tasks=["semseg"]).as_dict()["labels"]["val"]["semseg"]
    shares = [one["share"] for one in semseg["classes"].values() if one["images"]]
    assert [one["share"] for one in counts["classes"].values()] == shares


# ---------------------------------------------------------------------- errors


def test_what_cannot_be_checked(whole, tmp_path):
    with pytest.raises(DataError, match=r"no folder .*nowhere"):
        check_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is no data set"):
        check_data(tmp_path)
    for root in whole.values():
        with pytest.raises(UnknownNameError, match="did you mean 'semseg'"):
            check_data(root, tasks=["semsge"])


def test_a_tally_refuses_what_its_task_refuses():
    tally = Tally("sal", None)
    with pytest.raises(ShapeError, match="holds 2; expected 0 to 1"):
        tally.add(torch.tensor([[2]]))
    assert tally.images == 0
    assert tally.as_dict()["ignored"] is None


# ---------------------------------------------------------------------- the picture


def test_samples_are_the_first_of_most_labels_in_each_stretch_of_a_list(whole, scenes):
    report = check_data(whole["pascal"], samples=4)
    expected = []
    for split, items in scenes.items():
        names = ids(whole["pascal"], f"Context/{split}")
        people = [bool((item["semseg"] == 6).any()) for item in items]
        for stretch in ([0, 1], [2]):
            best = next((index for index in stretch if people[index]), stretch[0])
            expected.append((split, names[best]))
    assert [(split, item["meta"]["id"]) for split, item in report.samples] == expected
    alike = check_data(whole["pascal"], samples=2, tasks=["sal"]).samples
    assert [item["meta"]["id"] for _, item in alike] == [
        ids(whole["pascal"], f"Context/{split}")[0] for split in scenes
    ]
    assert check_data(whole["pascal"]).samples == []


@pytest.mark.parametrize("layout", ["pascal", "nyud", "folder"])
def test_the_picture_shows_each_label_as_its_task_draws_it(whole, tmp_path, layout):
    report = check_data(whole[layout], samples=3, splits=["val"])
    tallies = report.tallies["val"]
    size = draw_samples(report.samples, tallies, tmp_path / "out.png")
    sheet = Image.open(tmp_path / "out.png")
    assert sheet.size == size and sheet.mode == "RGB"
    heights = [
        round(TILE * item["image"].shape[1] / max(item["image"].shape[1:]))
        for _, item in report.samples
    ]
    assert size[0] == (1 + len(tallies)) * (TILE + 10) + 10
    assert size[1] > sum(heights)
    pixels, top = np.asarray(sheet), 30
    for (_, item), height in zip(report.samples, heights, strict=True):
        width = round(TILE * item["image"].shape[2] / max(item["image"].shape[1:]))
        for column, task in enumerate(("image", *tallies)):
            left = 10 + column * (TILE + 10)
            tile = pixels[top : top + height, left : left + width]
            if task not in item:
                assert (tile[height // 2 :] == 255).all()
            elif task == "image":
                mean = item["image"].mean((1, 2)).numpy() * 255
                assert np.abs(tile.mean((0, 1)) - mean).max() < 3
            else:
                drawn = Image.fromarray(tallies[task].task.draw_target(item[task]).numpy())
                assert (tile == np.asarray(drawn.resize((width, height), 0))).all()
            assert (pixels[top : top + height, left + width : left + width + 8] == 255).all()
        top += height + 30


def test_a_narrow_picture_has_room_for_its_legend(whole, tmp_path):
    report = check_data(whole["pascal"], samples=1, splits=["val"], tasks=["sal"])
    width, height = draw_samples(report.samples, report.tallies["val"], tmp_path / "out.png")
    assert width >= 500 and height > TILE / 2


def test_what_shrinks_keeps_its_classes_and_its_thin_edges(tmp_path):
    big = 4 * TILE
    line = torch.zeros(big, big, dtype=torch.int64)
    line[1::8, :] = 1  # of every eight rows one, and none that the nearest would take
    item = {"image": torch.zeros(3, big, big), "semseg": 15 * line.T, "edge": line}
    item["meta"] = {"id": "a", "size": (big, big)}
    tallies = {"semseg": Tally("semseg", None), "edge": Tally("edge", None)}
    draw_samples([("train", item)], tallies, tmp_path / "out.png")
    rows = np.asarray(Image.open(tmp_path / "out.png"))[30 : 30 + TILE]
    semseg, edge = (rows[:, 10 + n * (TILE + 10) :][:, :TILE] for n in (1, 2))
    colours = {tuple(colour) for colour in semseg.reshape(-1, 3).tolist()}
    assert colours <= {(0, 0, 0), (192, 128, 128)}
    assert (edge[::2] > 40).all() and (edge[1::2] == 0).all()
