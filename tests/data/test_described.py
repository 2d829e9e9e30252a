"""Ready descriptions: a made set in each layout is read back label by label."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from peft_dense.data import (
    DescribedFolder,
    check_data,
    find_place,
    layout_of,
    make_archive,
    open_data,
    read_description,
    ready_descriptions,
    tasks_of,
)
from peft_dense.data.labels import Item
from peft_dense.data.made.archive import scenes_of
from peft_dense.data.made.archive_described import STANDS_FOR
from peft_dense.data.sources.nyud import CLASSES as NYUD_CLASSES
from peft_dense.errors import DataError, MissingFileError

TRAIN, VAL, SIZE, SEED = 4, 2, (40, 56), 5
LAYOUTS = sorted(set(ready_descriptions()) - {"folder"})
VOC = ("background", "background", "tvmonitor", "sheep", "bottle", "chair", "person")
NYU = [NYUD_CLASSES[number - 1] for number in (1, 2, 29, 40, 35, 39, 31)]
NAMES = {
    "voc": VOC,
    "nyuv2_mat": NYU,
    "coco_stuff": STANDS_FOR["coco"],
    "coco_panoptic": STANDS_FOR["coco"],
    **{name: STANDS_FOR[name] for name in ("cityscapes", "ade20k", "taskonomy")},
}
EXACT = {"cityscapes": 0.001, "taskonomy": 1 / 1024, "seven_scenes": 0.0005, "nyuv2_mat": 0.0}
"""How far a depth may be from what was rendered, by its coding."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("made")
    size = {"train": TRAIN, "val": VAL, "size": SIZE, "seed": SEED}
    for name in LAYOUTS:
        make_archive(base / name, layout=name, **size)
    return {name: base / name for name in LAYOUTS}


@pytest.fixture(scope="module")
def scenes() -> list[tuple[str, Item]]:
    return [(split, item) for split, _, item in scenes_of(TRAIN, VAL, SIZE, SEED)]


def borders(classes: torch.Tensor) -> torch.Tensor:
    """Pixels with another value among their eight neighbours, one by one."""
    held, out = classes.numpy(), np.zeros(classes.shape, bool)
    for y, x in np.ndindex(*held.shape):
        window = held[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        out[y, x] = (window != held[y, x]).any()
    return torch.from_numpy(out)


def pairs(layout: str, root: Path, scenes: list[tuple[str, Item]]) -> list[tuple[Item, Item]]:
    """Each item that is read, and the scene it was made of."""
    read = [item for split in ("train", "val") for item in open_data(root, split)]
    if layout == "taskonomy":  # its splits are drawn, so pairs are found by what the image shows
        found = []
        for item in read:
            same = [s for _, s in scenes if s["image"].shape == item["image"].shape]
            found.append((item, min(same, key=lambda s: (s["image"] - item["image"]).abs().mean())))
        return found
    return list(zip(read, (item for _, item in scenes), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_made_set_is_read_back_label_by_label(made, scenes, layout):
    root, compared = made[layout], set()
    data = open_data(root, "train")
    assert layout_of(root) == layout and set(data.tasks) == set(read_description(layout).tasks)
    for item, scene in pairs(layout, root, scenes):
        height, width = item["image"].shape[-2:]  # the .mat holds scenes cut to one size
        scene = {k: v[..., :height, :width] for k, v in scene.items() if k != "meta"}
        assert (item["image"] - scene["image"]).abs().mean() < 0.02
        void = borders(scene["semseg"])
        for task in data.tasks:
            compared.add(task)
            if task == "semseg":
                names = tasks_of(data)["semseg"].classes
                expected = torch.tensor([names.index(n) for n in NAMES[layout]])[scene["semseg"]]
                gone = void if layout in ("taskonomy", "seven_scenes") else borders(expected)
                assert item[task].dtype == torch.int64
                assert_close(item[task], torch.where(gone, 255, expected))
            elif task == "depth":
                wanted = scene["depth"]
                if layout == "seven_scenes":
                    wanted = wanted.masked_fill(void, 0)
                if layout == "cityscapes":  # 16 bits hold no larger disparities
                    wanted = wanted.masked_fill(wanted < 121233 / 65533, 0)
                    assert_close(item["depth"] == 0, wanted == 0)
                apart = (item["depth"] - wanted).abs()
                assert (apart <= EXACT[layout] * (1 + wanted) + 1e-5).all()
                assert item["depth"].dtype == torch.float32 and (item["depth"] > 0).any()
            else:
                angle = (item["normals"] * scene["normals"]).sum(0).clamp(-1, 1).acos().rad2deg()
                assert angle.max() < 1.5
    assert compared == set(data.tasks)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_made_set_has_no_problems_and_its_tasks_have_their_classes(made, layout):
    report = check_data(made[layout])
    assert not report.problems and report.layout == layout
    assert sum(report.images.values()) == TRAIN + VAL
    found = tasks_of(open_data(f"{layout}:{made[layout]}", "val"))
    numbers = (
        {"semseg": read_description(layout).tasks["semseg"].number} if "semseg" in found else {}
    )
    numbers |= {task: {"depth": 1, "normals": 3}[task] for task in found if task != "semseg"}
    assert {name: task.channels for name, task in found.items()} == numbers


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_travels_to_workers(made, layout):
    data = open_data(made[layout], "train")
    assert data[0]["image"].shape[0] == 3  # open files don't travel
    again = pickle.loads(pickle.dumps(data))
    for name, value in data[1].items():
        if name != "meta":
            assert_close(again[1][name], value)


def test_the_folder_layout_is_described_too(tmp_path):
    root = make_archive(tmp_path / "f", train=2, val=1, size=SIZE, layout="folder")
    mine, described = open_data(root, "train"), DescribedFolder("folder", "train", root=root)
    assert layout_of(root) == "folder"
    for a, b in zip(mine, described, strict=True):
        assert set(mine.tasks) == set(described.tasks)
        for task in mine.tasks:
            assert_close(a[task], b[task])


def test_every_layout_can_be_made():
    from peft_dense.data.made.archive import LAYOUTS as MADE

    assert set(ready_descriptions()) <= set(MADE)


def test_a_layout_in_a_folder_of_its_release_is_found(made, tmp_path):
    root = shutil.copytree(made["voc"], tmp_path / "VOCdevkit")
    assert layout_of(root) == "voc" and len(open_data(tmp_path, "train")) == TRAIN


def test_what_names_the_data_names_it_again_from_anywhere(made, monkeypatch, tmp_path):
    monkeypatch.chdir(made["voc"].parent)
    for given in ("voc", "voc:voc"):
        text = find_place(given).text
        monkeypatch.chdir(tmp_path)
        assert len(open_data(text, "val")) == VAL
        monkeypatch.chdir(made["voc"].parent)
    with pytest.raises(DataError, match=r"names no ready description; did you mean 'voc'\?"):
        find_place(f"vok:{made['voc']}")


def test_lists_of_sequences_choose_among_frames(made):
    root = made["seven_scenes"]
    train, val = (open_data(root, split).ids for split in ("train", "val"))
    assert train == [f"room/01/{n:06d}" for n in range(TRAIN)]
    assert val == [f"room/02/{n:06d}" for n in range(VAL)]


# ------------------------------------------------------------------------------ containers


def test_a_segment_that_the_json_does_not_list(made, tmp_path):
    root = shutil.copytree(made["coco_panoptic"], tmp_path / "coco")
    path = root / "annotations" / "panoptic_train2017.json"
    held = json.loads(path.read_text())
    gone = held["annotations"][0]["segments_info"].pop()
    path.write_text(json.dumps(held))
    said = rf"png has segment {gone['id']}, which .*panoptic_train2017.json doesn't list"
    with pytest.raises(DataError, match=said):
        open_data(root, "train")[0]
    del held["annotations"][0]
    path.write_text(json.dumps(held))
    with pytest.raises(DataError, match="lists no annotation with file_name"):
        open_data(root, "train")[0]
    path.write_text("{}")
    with pytest.raises(DataError, match="isn't COCO's panoptic JSON .*expected annotations"):
        open_data(root, "train")[0]
    path.unlink()
    with pytest.raises(MissingFileError, match="expected the JSON that says what the segments"):
        DescribedFolder("coco_panoptic", "train", root=root)[0]


def test_a_mat_file_that_is_not_one_or_lacks_a_variable(made, tmp_path):
    root = shutil.copytree(made["nyuv2_mat"], tmp_path / "nyu")
    own = {"like": "nyuv2_mat", "tasks": {"depth": {"variable": "dephts"}}}
    with pytest.raises(DataError, match=r"no variable 'dephts'; did you mean 'depths'\?"):
        DescribedFolder(own, "train", ["depth"], root=root)[0]
    (root / "nyu_depth_v2_labeled.mat").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"can't read .*labeled.mat"):
        open_data(root, "train")[0]
