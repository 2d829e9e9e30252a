"""Made archives: what the files hold is what was rendered, and what the loaders read is too."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat
from torch.testing import assert_close

from peft_dense.data import DenseFolder, Scenes
from peft_dense.data.labels import Item
from peft_dense.data.made.archive import make_archive, scenes_of
from peft_dense.data.made.scenes import CLASSES
from peft_dense.data.sources.nyud import CLASSES as NYUD_CLASSES
from peft_dense.data.sources.nyud import NYUDv2
from peft_dense.data.sources.pascal_context import PASCALContext
from peft_dense.errors import DataError, MissingPackageError, UnknownNameError

TRAIN, VAL, SIZE, SEED = 5, 3, (64, 80), 3
PARTS = {
    1: "head hair lear rear leye reye lebrow rebrow nose mouth",
    2: "torso neck",
    3: "luarm ruarm",
    4: "llarm rlarm lhand rhand",
    5: "luleg ruleg",
    6: "llleg rlleg lfoot rfoot",
}
PART_OF = {name: part for part, names in PARTS.items() for name in names.split()}
VOC = np.array([0, 0, 20, 17, 5, 9, 15])  # wall, ground, box, sphere, cylinder, cone, person
CONTEXT = np.array([440, 189, 427, 347, 34, 72, 284])
VALID = [440, 427, 34, 72, 284]  # of these seven, the ones among the 170 whose normals count


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "archive"
    return make_archive(root, train=TRAIN, val=VAL, size=SIZE, seed=SEED)


@pytest.fixture(scope="module")
def scenes() -> dict[str, Item]:
    return {name: item for _, name, item in scenes_of(TRAIN, VAL, SIZE, SEED)}


def png(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def near_another(classes: np.ndarray) -> np.ndarray:
    """Pixels with another value among their eight neighbours, one by one."""
    out = np.zeros(classes.shape, bool)
    for y, x in np.ndindex(*classes.shape):
        window = classes[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        out[y, x] = (window != classes[y, x]).any()
    return out


def void_semseg(item: Item) -> np.ndarray:
    classes = VOC[item["semseg"].numpy()]
    return np.where(near_another(classes), 255, classes)


# ---------------------------------------------------------------------- files, read raw


def test_images_and_lists(made, scenes):
    listed = {
        split: (made / "ImageSets" / "Context" / f"{split}.txt").read_text().split()
        for split in ("train", "val")
    }
    assert listed["train"] + listed["val"] == list(scenes)
    assert [len(listed["train"]), len(listed["val"])] == [TRAIN, VAL]
    assert next(iter(scenes)) == "2008_000002"
    for name, item in scenes.items():
        image = png(made / "JPEGImages" / f"{name}.jpg")
        truth = 255 * item["image"].movedim(0, -1).numpy()
        assert image.shape == truth.shape
        assert np.abs(image - truth).mean() < 4


def test_sizes_differ(scenes):
    sizes = [tuple(item["image"].shape[-2:]) for item in scenes.values()]
    assert len(set(sizes)) > 4
    assert all(SIZE[0] * 7 / 8 <= min(size) <= max(size) <= SIZE[1] for size in sizes)
    assert [height > width for height, width in sizes] == [i % 4 == 3 for i in range(len(sizes))]


def test_semseg_lies_in_one_of_two_folders(made, scenes):
    modes = set()
    for name, item in scenes.items():
        (path,) = (made / "semseg").glob(f"*/{name}.png")
        modes.add((path.parent.name, Image.open(path).mode))
        assert (png(path) == void_semseg(item)).all()
    assert modes == {("VOC12", "P"), ("pascal-context", "L")}


def test_palette_is_that_of_voc(made):
    path = next((made / "semseg" / "VOC12").iterdir())
    colours = np.reshape(Image.open(path).getpalette(), (-1, 3))
    assert colours[15].tolist() == [192, 128, 128]  # person


def test_regions_are_classes_of_pascal_context(made, scenes):
    for name, item in scenes.items():
        regions = loadmat(made / "pascal-context" / "trainval" / f"{name}.mat")["LabelMap"]
        assert regions.dtype == np.uint16
        assert (regions == CONTEXT[item["semseg"].numpy()]).all()


def test_normals_and_saliency_to_the_rounding_of_bytes(made, scenes):
    for name, item in scenes.items():
        normals = png(made / "normals_distill" / f"{name}.png") / 255 * 2 - 1
        assert np.abs(normals - item["normals"].movedim(0, -1).numpy()).max() <= 1.01 / 255
        sal = png(made / "sal_distill" / f"{name}.png")
        assert sal.dtype == np.uint8 and len(np.unique(sal)) > 10
        assert ((sal / 255 > 0.5) == item["sal"].numpy()).all()


def test_parts_of_people_later_ones_over_earlier_ones(made, scenes):
    names, seen, hidden = set(), set(), 0
    for name, item in scenes.items():
        anno = loadmat(made / "human_parts" / f"{name}.mat")["anno"][0, 0]
        assert anno["imname"][0] == name
        found, covered = np.zeros(item["semseg"].shape, int), np.zeros(item["semseg"].shape, int)
        for one in anno["objects"][0]:
            index = int(one["class_ind"][0, 0])
            seen.add((str(one["class"][0]), index, one["parts"].size > 0))
            covered += one["mask"] * index
            if index == 15:
                for part in one["parts"][0]:
                    part_name, mask = str(part["part_name"][0]), part["mask"].astype(bool)
                    names.add(part_name)
                    assert (mask <= one["mask"]).all()
                    found[mask] = PART_OF[part_name]
                    if part_name == "torso":
                        hidden += (item["human_parts"].numpy()[mask] == 3).sum()
        assert (covered == VOC[item["semseg"].numpy()]).all()
        people = item["semseg"].numpy() == 6
        assert (found == np.where(people, item["human_parts"].numpy(), 0)).all()
    assert hidden > 0  # a torso lies under upper arms
    assert names >= set(PART_OF) - {"lebrow", "rebrow"}
    assert seen == {
        ("bottle", 5, True),
        ("chair", 9, False),
        ("person", 15, True),
        ("sheep", 17, True),
        ("tvmonitor", 20, True),
    }


def test_list_of_parts_names_the_objects(made, scenes):
    listed = json.loads((made / "ImageSets" / "Parts" / "train.txt").read_text())
    listed |= json.loads((made / "ImageSets" / "Parts" / "val.txt").read_text())
    assert list(listed) == list(scenes)
    for name, found in listed.items():
        objects = loadmat(made / "human_parts" / f"{name}.mat")["anno"][0, 0]["objects"][0]
        assert len(found) == len(objects)
        for index, one in zip(found, objects, strict=True):
            small = one["mask"].mean() < 0.002
            assert index == (-1 if small else one["class_ind"][0, 0])
    assert any(-1 in found for found in listed.values())


# ---------------------------------------------------------------------- the whole, or nothing


def test_the_same_arguments_write_the_same_files(made, tmp_path):
    again = make_archive(tmp_path / "again", train=TRAIN, val=VAL, size=SIZE, seed=SEED)
    files = sorted(path.relative_to(made) for path in made.rglob("*.*"))
    assert files == sorted(path.relative_to(again) for path in again.rglob("*.*"))
    for file in files:
        if file.suffix == ".mat":  # its header holds the time
            assert repr(loadmat(made / file)["__version__"])
        else:
            assert (made / file).read_bytes() == (again / file).read_bytes()


def test_seeds_differ():
    first, second = (next(scenes_of(1, 1, SIZE, seed))[2]["image"] for seed in (0, 1))
    assert first.shape != second.shape or not torch.equal(first, second)


def test_an_empty_folder_is_taken_a_used_one_refused(tmp_path):
    root = tmp_path / "here"
    root.mkdir()
    make_archive(root, train=1, val=1, size=(16, 16))
    assert list(tmp_path.iterdir()) == [root] and list(root.iterdir()) == [root / "PASCAL_MT"]
    before = sorted(root.rglob("*"))
    with pytest.raises(DataError, match="exists and isn't an empty folder"):
        make_archive(root, train=1, val=1, size=(16, 16))
    assert sorted(root.rglob("*")) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="exists and isn't an empty folder"):
        make_archive(tmp_path / "file")


def test_what_breaks_half_way_leaves_nothing(tmp_path, monkeypatch):
    def breaks(self: object) -> None:
        raise RuntimeError("out of something")

    monkeypatch.setattr("peft_dense.data.made.archive_pascal.PascalWriter.finish", breaks)
    with pytest.raises(RuntimeError, match="out of something"):
        make_archive(tmp_path / "half", train=1, val=1, size=(16, 16))
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_named_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingPackageError, match=r"layout pascal needs scipy.*peft-dense.train"):
        make_archive(tmp_path / "new", train=1, val=1, size=(32, 48))
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"can't write .*new"):
        make_archive(tmp_path / "file" / "new", train=1, val=1, size=(16, 16))


@pytest.mark.parametrize(
    "arguments", [{"train": 0}, {"val": 0}, {"size": (15, 40)}, {"size": (40,)}], ids=str
)
def test_nothing_to_write(tmp_path, arguments):
    with pytest.raises(DataError, match="expected at least one image of each split"):
        make_archive(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


def test_unknown_layout(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'pascal'"):
        make_archive(tmp_path / "new", layout="pascl")
    with pytest.raises(UnknownNameError, match="did you mean 'demo'"):
        make_archive(tmp_path / "new", look="demos")


# ---------------------------------------------------------------------- the other layouts


def test_folder_is_read_as_rendered(tmp_path, scenes):
    root = make_archive(
        tmp_path / "folder", train=TRAIN, val=VAL, size=SIZE, seed=SEED, layout="folder"
    )
    tasks = ("semseg", "human_parts", "sal", "edge", "normals", "depth")
    without = set(scenes)
    for split in ("train", "val"):
        data = DenseFolder(root, split, tasks)
        assert data.classes == Scenes(1, tasks=tasks).classes
        for name, item in zip(data.ids, data, strict=False):
            truth = scenes[name]
            for task in tasks[:4]:
                assert torch.equal(item[task], truth[task]), task
            assert (item["normals"] - truth["normals"]).abs().max() < 2.1 / 255
            assert (item["depth"] - truth["depth"]).abs().max() <= 0.00051
            if (truth["human_parts"] == 255).all():
                assert not (root / "human_parts" / f"{name}.png").exists()
            else:
                without.discard(name)
    assert without  # some scene shows no people


# ---------------------------------------------------------------------- the real loaders

TASKS = ("semseg", "human_parts", "sal", "normals", "edge")


@pytest.fixture(scope="module")
def read(made: Path) -> dict[str, Item]:
    """What the loader makes of the archive, by id."""
    splits = (PASCALContext(made, split, TASKS, cache=False) for split in ("train", "val"))
    return {name: data[index] for data in splits for index, name in enumerate(data.ids)}


def test_loader_reads_what_was_rendered(read, scenes):
    assert list(read) == list(scenes)
    for name, item in scenes.items():
        found = read[name]
        assert found["semseg"].tolist() == void_semseg(item).tolist()
        assert torch.equal(found["sal"], item["sal"])
        assert torch.equal(found["human_parts"], item["human_parts"])
        assert (found["image"] - item["image"]).abs().mean() < 0.02
        assert found["meta"]["size"] == tuple(item["semseg"].shape)
    blank = [(item["human_parts"] == 255).all().item() for item in scenes.values()]
    assert any(blank) and not all(blank)


def test_loader_reads_normals_to_rounding_and_only_where_they_count(read, scenes):
    for name, item in scenes.items():
        found, truth = read[name]["normals"], item["normals"]
        valid = torch.from_numpy(np.isin(CONTEXT[item["semseg"].numpy()], VALID))
        assert (found[:, ~valid] == 255).all() and (~valid).any()
        assert_close(found[:, valid].norm(dim=0), torch.ones(int(valid.sum())))
        # a byte is off by half a step of 2/255 at most, and scaling to unit length by little more
        assert (found - truth)[:, valid].abs().max() < 1.8 / 255


def test_loader_draws_edges_on_the_borders_of_what_was_rendered(read, scenes):
    for name, item in scenes.items():
        edge = read[name]["edge"].bool().numpy()
        border = near_another(item["semseg"].numpy())
        assert (border | ~edge).all()  # on borders alone
        windows = np.pad(edge, 1)
        near = np.zeros(edge.shape, bool)
        for y, x in np.ndindex(*edge.shape):
            near[y, x] = windows[y : y + 3, x : x + 3].any()
        assert (near & border).sum() > 0.95 * border.sum()  # and on nearly all of them


def test_nyud_is_read_as_rendered(tmp_path, scenes):
    root = make_archive(tmp_path / "n", train=TRAIN, val=VAL, size=SIZE, seed=SEED, layout="nyud")
    assert root.name == "NYUD_MT"
    names = {"background": "wall", "ground": "floor", "box": "box", "person": "person"}
    names |= {"sphere": "otherprop", "cylinder": "lamp", "cone": "otherfurniture"}
    table = np.array([NYUD_CLASSES.index(names[name]) for name in CLASSES])
    for split in ("train", "val"):
        data = NYUDv2(tmp_path / "n", split)
        for index, name in enumerate(data.ids):
            item, truth = data[index], scenes[name]
            void = near_another(truth["semseg"].numpy())
            semseg = np.where(void, 255, table[truth["semseg"].numpy()])
            assert (item["semseg"].numpy() == semseg).all()
            assert (item["depth"][0].numpy() == np.where(void, 0, truth["depth"][0])).all()
            assert_close(item["normals"], truth["normals"])
            assert torch.equal(item["edge"], truth["edge"])


def test_a_look_is_that_of_the_scenes(tmp_path: Path) -> None:
    how = {"train": 1, "val": 1, "size": (32, 48), "layout": "folder"}
    photos = {}
    for look in ("mixed", "demo"):
        root = make_archive(tmp_path / look, look=look, **how)
        (photo, *_) = sorted((root / "images").iterdir())
        with Image.open(photo) as image:
            photos[look] = np.asarray(image).astype(int)
        expected = Scenes(2, photos[look].shape[:2], look=look)[0]["image"].movedim(0, -1)
        assert abs(photos[look] - 255 * expected.numpy()).mean() < 20  # JPEG
    assert abs(photos["mixed"] - photos["demo"]).mean() > 20
