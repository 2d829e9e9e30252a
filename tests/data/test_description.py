"""Descriptions: what files hold is read as it is described, and what can't be is said clearly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.testing import assert_close

from peft_dense.data import (
    DescribedFolder,
    Description,
    check_data,
    open_data,
    read_description,
    register_reader,
    tasks_of,
)
from peft_dense.data.described import codes, readers
from peft_dense.data.described.codes import Table
from peft_dense.data.described.patterns import Pattern, line_regex
from peft_dense.data.described.schema import SplitDescription
from peft_dense.errors import DataError, HyperparameterError, UnknownNameError

H, W = 4, 6
rng = np.random.default_rng(0)


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


def cells(*values: Any, dtype: type = np.uint8) -> np.ndarray:
    """A map that holds each of some values, or of some colours."""
    array = np.array(values, dtype)
    return np.resize(array, (H, W, 3) if array.ndim == 2 else (H, W))


def folder(root: Path, label: np.ndarray, ending: str = "png", ids: str = "ab") -> Path:
    """Two photographs, each with a label of that content."""
    for name in ids:
        save(root / "photos" / f"{name}.png", rng.integers(0, 256, (H, W, 3), np.uint8))
        save(root / "maps" / f"{name}.{ending}", label)
    return root


def described(
    root: Path, task: str = "semseg", ending: str = "png", **keys: Any
) -> DescribedFolder:
    description = {
        "images": "photos/{id}.png",
        "splits": {"train": {"share": 1.0}},
        "tasks": {task: {"labels": f"maps/{{id}}.{ending}", **keys}},
    }
    return DescribedFolder(description, "train", root=root)


def first(root: Path, task: str = "semseg", **keys: Any) -> list[Any]:
    """The values of a label's first pixels."""
    return described(root, task, **keys)[0][task].flatten().tolist()


# ------------------------------------------------------------------------------ classes


@pytest.mark.parametrize(
    ("held", "keys", "expected"),
    [
        (
            (7, 8, 0, 255),
            {"values": {"7": "road", "8": "tree"}, "ignore": [0, 255]},
            [0, 1, 255, 255],
        ),
        ((7, 8, 0, 255), {"values": {7: 1, 8: 0, 0: "ignore"}, "classes": 2}, [1, 0, 255, 255]),
        ((7, 8, 3), {"values": {"7-8": "road"}, "others": "ignore"}, [0, 0, 255]),
        ((7, 8, 3), {"values": {"7-8": "b"}, "classes": ["a", "b"], "others": "a"}, [1, 1, 0]),
        ((0, 1, 2), {"values": ["ignore", 0, "tree"], "classes": ["road", "tree"]}, [255, 0, 1]),
        ((0, 1, 11), {"classes": 11, "ignore": [11]}, [0, 1, 255]),
        ((0, 1, 2, 3), {"classes": 4, "ignore": ["1-2"]}, [0, 255, 255, 3]),
        ((0, 5, 9), {"ignore": [9]}, [0, 5, 255]),
        ((0, 1, 255), {"classes": 2}, [0, 1, 255]),
    ],
)
def test_values_become_classes(tmp_path, held, keys, expected):
    root = folder(tmp_path, cells(*held))
    assert first(root, **keys)[: len(held)] == expected


@pytest.mark.parametrize("kind", ["list", "table", "several"])
def test_colours_become_classes(tmp_path, kind):
    road, tree, void = [128, 64, 128], [107, 142, 35], [0, 0, 0]
    root = folder(tmp_path, cells(road, tree, void))
    palette: Any = {"road": "#804080", "tree": tree}
    keys: dict[str, Any] = {"palette": palette, "ignore": ["#000000"]}
    expected = [0, 1, 255]
    if kind == "list":
        keys = {"palette": [road, tree], "classes": ["road", "tree"], "ignore": ["#000000"]}
    if kind == "several":
        keys, expected = {"palette": {"road": [road, void], "tree": tree}}, [0, 1, 0]
    data = described(root, **keys)
    assert data[0]["semseg"].flatten()[:3].tolist() == expected
    assert data.classes == {"semseg": ["road", "tree"]} and tasks_of(data)["semseg"].channels == 2


def test_a_palette_is_read_from_indexed_files_too(tmp_path):
    root = folder(tmp_path, cells([128, 0, 0], [0, 0, 0]))
    for path in (root / "maps").iterdir():
        Image.open(path).quantize(4).save(path)
    assert first(root, palette={"no": "#000000", "yes": "#800000"})[:2] == [1, 0]


@pytest.mark.parametrize(
    ("task", "held", "keys", "expected"),
    [
        ("sal", (0, 255), {}, [0, 1]),
        ("sal", (0, 1, 255), {}, [0, 1, 255]),
        ("edge", (0, 1, 255), {"ignore": []}, None),
        ("sal", (10, 200, 255), {"threshold": 127, "ignore": [255]}, [0, 1, 255]),
        ("sal", (0, 15, 9), {"values": {"15": 1}, "others": 0}, [0, 1, 0]),
        ("roofs", (3, 4), {"values": {"3": "background", "4": "marked"}, "kind": "binary"}, [0, 1]),
        (
            "sal",
            ([0, 0, 0], [9, 9, 9]),
            {"palette": {"background": "#000000", "marked": "#090909"}},
            [0, 1],
        ),
    ],
)
def test_masks(tmp_path, task, held, keys, expected):
    root = folder(tmp_path, cells(*held))
    if expected is None:
        with pytest.raises(DataError, match="255"):
            first(root, task, **keys)
        return
    assert first(root, task, **keys)[: len(held)] == expected


def test_a_grey_map_saved_as_rgb_is_a_map(tmp_path):
    root = folder(tmp_path, np.repeat(cells(0, 1, 2)[..., None], 3, -1))
    assert first(root, classes=3)[:3] == [0, 1, 2]
    root = folder(tmp_path, cells([0, 1, 2], [3, 3, 3]))
    with pytest.raises(
        DataError, match=r"maps.a.png has shape .* give a palette in \[tasks.semseg"
    ):
        first(root, classes=3)


def test_more_than_255_classes(tmp_path):
    root = folder(tmp_path, cells(0, 299, 65535, dtype=np.uint16))
    assert first(root, classes=300)[:3] == [0, 299, 65535]
    assert first(root, values={"0": 0, "299": 255}, classes=300, ignore=[65535])[:2] == [0, 255]


@given(st.dictionaries(st.integers(0, 70000), st.integers(0, 300), max_size=20), st.data())
def test_a_table_is_a_dict(codes, data):
    values = data.draw(st.lists(st.integers(0, 70001), min_size=1, max_size=40))
    for dtype in (np.int32, np.uint8):
        held = np.array(values).astype(dtype)
        found, absent = Table(codes).find(held, others=None)
        assert found.tolist() == [codes.get(int(v), Table.unknown) for v in held]
        assert absent.tolist() == [int(v) not in codes for v in held]
        assert Table(codes).find(held, others=7)[0].tolist() == [codes.get(int(v), 7) for v in held]


# ------------------------------------------------------------------------------ depth, normals


@pytest.mark.parametrize(
    ("held", "keys", "metres"),
    [
        ((1000, 65535, 0), {"unit": "mm", "invalid": [65535]}, [1.0, 0, 0]),
        ((150, 2), {"unit": "cm"}, [1.5, 0.02]),
        ((512, 65010), {"scale": 1 / 512, "invalid": ["65000-65535"]}, [1.0, 0]),
        ((101, 1), {"scale": 50.0, "offset": -1, "inverse": True}, [0.5, 0]),
        ((2000,), {}, [2.0]),
    ],
)
def test_depth_by_its_unit(tmp_path, held, keys, metres):
    root = folder(tmp_path, cells(*held, dtype=np.uint16))
    assert first(root, "depth", **keys)[: len(held)] == pytest.approx(metres)


def test_depth_of_bytes_and_of_floats(tmp_path):
    root = folder(tmp_path, cells(10, 255))
    assert first(root, "depth", scale=0.1, invalid=[255])[:2] == pytest.approx([1.0, 0])
    held = cells(2.5, np.nan, np.inf, -1, dtype=np.float32)
    root = folder(tmp_path / "f", held, "npy")
    assert first(root, "depth", ending="npy", unit="ft")[:4] == pytest.approx([0.762, 0, 0, 0])


@given(st.permutations([("right", "left"), ("up", "down"), ("viewer", "away")]), st.data())
def test_normals_by_their_axes(tmp_path_factory, pairs, data):
    axes = [data.draw(st.sampled_from(pair)) for pair in pairs]
    n = torch.nn.functional.normalize(torch.randn(3, H, W), dim=0)
    plane = {"right": n[0], "up": n[1], "viewer": n[2], "left": -n[0], "down": -n[1], "away": -n[2]}
    held = torch.stack([plane[axis] for axis in axes], -1).numpy()
    base = tmp_path_factory.mktemp("n")
    root = folder(base / "floats", held, "npy", ids="a")
    assert_close(described(root, "normals", "npy", axes=axes)[0]["normals"], n, atol=1e-5, rtol=0)
    zero = data.draw(st.sampled_from([127, 127.5, 128]))
    coded = (zero + 127 * held).round().clip(0, 255).astype(np.uint8)
    root = folder(base / "bytes", coded, ids="a")
    made = described(root, "normals", axes=axes, zero=zero)[0]["normals"]
    assert_close(made, n, atol=0.02, rtol=0)


def test_normals_that_are_none(tmp_path):
    root = folder(tmp_path, cells([127, 127, 127], [9, 8, 7], [255, 127, 127], [0, 0, 0]))
    data = described(root, "normals", axes=["left", "up", "viewer"], invalid=["#090807"])
    x = data[0]["normals"][0].flatten()[:4]
    assert x.tolist() == pytest.approx([255, 255, -1, 255], abs=0.01)


# ------------------------------------------------------------------------------ where things lie


def test_patterns():
    pattern = Pattern("{scene}/{split}/{id}_rgb.*", (".png", ".jpg"))
    assert pattern.match("a/train/x/y_rgb.PNG") == {"scene": "a", "split": "train", "id": "x/y"}
    assert pattern.match("a/train/x_rgb.txt") is None and pattern.id_names == ("scene", "id")
    assert Pattern("{id}/{id}.png").match("a/b.png") is None
    assert line_regex("/data/*/{id}.jpg,*").fullmatch("/data/x/y/b.jpg,3")["id"] == "b"
    for wrong in ("../{id}.png", "/a/{id}.png", "a/*.png", "a/{i d}.png", "a/{id.png"):
        with pytest.raises(DataError, match="is no pattern of paths; expected"):
            Pattern(wrong)


names = st.text("ab1_", min_size=1, max_size=4)


@given(st.tuples(names, names, names))
def test_a_filled_pattern_gives_its_values_back(values):
    for text in ("{scene}/{split}/{id}.png", "x_{scene}/y/{split}/{id}/z.png"):
        named = dict(zip(("scene", "split", "id"), values, strict=True))
        assert Pattern(text).match(Pattern(text).fill(named)) == named


def layout(root: Path, *paths: str) -> Path:
    for path in paths:
        save(root / path, cells([1, 2, 3]) if "photos" in path else cells(0, 1))
    return root


def ids(root: Path, split: str, **keys: Any) -> list[str]:
    given = {
        "images": "photos/{split}/{id}.png",
        "tasks": {"sal": {"labels": "maps/{split}/{id}.png"}},
    }
    return DescribedFolder({**given, **keys}, split, root=root).ids


def test_splits_are_the_folders_that_are_there_or_what_they_are_called(tmp_path):
    root = layout(
        tmp_path,
        *(
            f"{w}/{s}/x/{n}.png"
            for w in ("photos", "maps")
            for s, n in (("train", "a"), ("valid", "b"))
        ),
    )
    assert ids(root, "train") == ["x/a"] and ids(root, "valid") == ["x/b"]
    assert ids(root, "val", splits={"val": {"folder": "valid"}}) == ["x/b"]
    with pytest.raises(
        DataError, match=r"no file is .*photos.val.\{id\}.png.*photos holds train/, valid/"
    ):
        ids(root, "val")
    with pytest.raises(DataError, match="has no split 'train'; it has: val"):
        ids(root, "train", splits={"val": {"folder": "valid"}})


@pytest.mark.parametrize("order", ["digest", "name"])
def test_shares_are_disjoint_whole_and_the_same_each_time(tmp_path, order):
    names = [f"{scene}/{n}" for scene in "abcde" for n in range(4)]
    root = layout(tmp_path, *(f"{w}/{n}.png" for w in ("photos", "maps") for n in names))
    given = {
        "images": "photos/{scene}/{id}.png",
        "tasks": {"sal": {"labels": "maps/{scene}/{id}.png"}},
        "splits": {"train": {"share": 0.6}, "val": {"share": 0.2}, "test": {"share": 0.2}},
        "splitting": {"order": order},
    }
    cut = {s: DescribedFolder(given, s, root=root).ids for s in given["splits"]}
    assert [len(each) for each in cut.values()] == [12, 4, 4]
    assert sorted(name for each in cut.values() for name in each) == names
    if order == "name":
        assert cut["train"] == names[:12]
    given["splitting"]["by"] = "scene"
    scenes = [
        {name[0] for name in DescribedFolder(given, s, root=root).ids} for s in given["splits"]
    ]
    assert [len(each) for each in scenes] == [3, 1, 1] and len(set.union(*scenes)) == 5
    given["splits"]["test"] = {"share": 0.3}
    with pytest.raises(DataError, match=r"add up to 1.1 at 'test'; expected at most 1"):
        DescribedFolder(given, "test", root=root)
    given["splits"] = {"train": {"share": 0.01}}
    with pytest.raises(
        DataError, match="the share 0.01 of split 'train' .* is none of the 20 images"
    ):
        DescribedFolder(given, "train", root=root)


def test_lists_with_lines_of_their_own(tmp_path):
    root = layout(tmp_path, *(f"{w}/{n}.png" for w in ("photos", "maps") for n in ("a b", "c")))
    (root / "list.txt").write_text("photos/a b.png\n\nphotos/c.png\n")
    given: dict[str, Any] = {
        "images": "photos/{id}.png",
        "tasks": {"sal": {"labels": "maps/{id}.png"}},
        "splits": {"train": {"list": "list.txt", "line": "photos/{id}.png"}},
    }
    assert DescribedFolder(given, "train", root=root).ids == ["a b", "c"]
    (root / "list.txt").write_text("a b\nghost\n")
    given["splits"] = {"train": "list.txt"}
    with pytest.raises(
        DataError, match=r"no image .*photos.ghost.png; add it, or take 'ghost' off"
    ):
        DescribedFolder(given, "train", root=root)
    given["splits"] = {"train": {"list": "list.txt", "line": "x/{id}"}}
    with pytest.raises(DataError, match=r"has the line 'a b', which isn't of the form 'x/\{id\}'"):
        DescribedFolder(given, "train", root=root)
    given["splits"] = {"train": "lists.txt"}
    with pytest.raises(DataError, match=r"no list .*lists.txt for split 'train'.* holds list.txt"):
        DescribedFolder(given, "train", root=root)


def test_a_missing_label_is_ignored_and_its_image_stays(tmp_path):
    root = folder(tmp_path, cells(0, 1))
    (root / "maps" / "b.png").unlink()
    data = described(root, "sal")
    assert "sal" not in data.files("b") and (data[1]["sal"] == 255).all()


def test_two_files_for_one_id(tmp_path):
    root = folder(tmp_path, cells(0, 1))
    save(root / "maps" / "a.bmp", cells(0, 1))
    with pytest.raises(DataError, match=r"maps has 2 files for 'a': a.bmp, a.png. Remove or"):
        described(root, "sal", ending="*")[0]


# ------------------------------------------------------------------------------ dense.toml

TOML = """
images = "photos/{id}.png"

[splits]
train = { share = 1.0 }

[tasks.semseg]
labels = "maps/{id}.png"
classes = ["a", "b"]
"""


def test_a_folder_with_a_dense_toml_is_read_by_it(tmp_path):
    root = folder(tmp_path, cells(0, 1))
    (root / "dense.toml").write_text(TOML)
    for where in (root, str(root / "dense.toml")):
        data = open_data(where, "train")
        assert data.classes == {"semseg": ["a", "b"]} and len(data) == 2
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my.toml").write_text(f'root = ".."\n{TOML}')
    assert len(open_data(tmp_path / "elsewhere" / "my.toml", "train")) == 2
    report = check_data(root)
    assert not report.problems and report.tallies["train"]["semseg"].labelled == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "classes",
            "clases",
            r"\[tasks.semseg\] of .*dense.toml has an unknown key 'clases'; did you mean 'classes'",
        ),
        ("images", "imges", r"dense.toml has an unknown key 'imges'; did you mean 'images'"),
        (
            "share = 1.0",
            "shre = 1.0",
            r"\[splits.train\] of .* unknown key 'shre'; did you mean 'share'",
        ),
        ("share = 1.0", "share = 2", r"has share = 2.0; expected above 0, up to 1"),
        ("share = 1.0", 'share = "all"', r"share = 'all'; expected a number"),
        ('classes = ["a", "b"]', "classes = 0", r"classes = 0; expected at least 1"),
        (
            'classes = ["a", "b"]',
            'unit = "mm"',
            r"has 'unit', which labels of kind segmentation don't have; it is of depth",
        ),
        (
            'classes = ["a", "b"]',
            'kind = "binry"',
            r"\[tasks.semseg\] of .*unknown kind of labels 'binry'; did you mean 'binary'",
        ),
        (
            'classes = ["a", "b"]',
            'kind = "depth"',
            r"\[tasks.semseg\] of .*task semseg has labels of kind segmentation",
        ),
        (
            'classes = ["a", "b"]',
            'values = { 1 = "c" }\nclasses = ["a", "b"]',
            r"names the class 'c', which isn't among classes",
        ),
        (
            'classes = ["a", "b"]',
            "values = { x = 1 }",
            r"has 'x'; expected a number, or a range as '1-6'",
        ),
        (
            'classes = ["a", "b"]',
            "ignore = [inf]\nclasses = 2",
            r"has inf to inf; expected whole numbers",
        ),
        (
            'classes = ["a", "b"]',
            'ignore = ["0-99999999"]\nclasses = 2',
            r"has 0 to 1e\+08; expected at most 16777216 values",
        ),
        (
            'classes = ["a", "b"]',
            "values = { 1 = 5 }\nclasses = 2",
            r"the class 5; expected .* from 0 to 1",
        ),
        (
            'classes = ["a", "b"]',
            'values = { 1 = 0, "0-3" = 1 }\nclasses = 2',
            r"gives 1 two classes, 0 and 1",
        ),
        (
            'classes = ["a", "b"]',
            'palette = { a = "red" }',
            r"has 'red'; expected a colour, as '#804080'",
        ),
        ('classes = ["a", "b"]', 'reader = "fil"', r"has reader = 'fil'; did you mean 'file'"),
        ('classes = ["a", "b"]', 'reader = "panoptic"', r"reader = 'panoptic' needs json"),
        ('classes = ["a", "b"]', 'json = "a.json"', r"reader = 'file' has no use for 'json'"),
        ('labels = "maps/{id}.png"', "", r"\[tasks.semseg\] of .* has no 'labels', which it needs"),
        (
            '"maps/{id}.png"',
            '"mps/{id}.png"',
            r"no file is .*mps.\{id\}.png, the labels of task 'semseg'.* it would be .*a.png, and "
            r".* holds dense.toml, maps/, photos/",
        ),
        (
            '"maps/{id}.png"',
            '"maps/{ids}.png"',
            r"has \{ids\} in labels .* isn't in images .*; expected names of id, split",
        ),
        (
            '"photos/{id}.png"',
            '"photos/{id}.jpg"',
            r"no file is .*photos.\{id\}.jpg, the pattern of images in .*photos holds a.png, b.png",
        ),
        ('"photos/{id}.png"', "photos", r"dense.toml isn't TOML: .*line 2"),
    ],
)
def test_what_a_dense_toml_cannot_say(tmp_path, old, new, said):
    root = folder(tmp_path, cells(0, 1))
    assert old in TOML
    (root / "dense.toml").write_text(TOML.replace(old, new))
    with pytest.raises((DataError, UnknownNameError, HyperparameterError), match=said):
        open_data(root, "train")[0]


@pytest.mark.parametrize(
    ("task", "keys", "said"),
    [
        (
            "depth",
            {"unit": "mmm"},
            r"\[tasks.depth\].* has unit = 'mmm'; did you mean 'mm'\?.*scale",
        ),
        ("depth", {"unit": "mm", "scale": 1.0}, "has a unit and a scale; expected one"),
        ("depth", {"inverse": True}, "inverse or offset, which need a unit or a scale"),
        ("depth", {"scale": -1}, "scale = -1; expected above 0"),
        ("depth", {"invalid": ["x"]}, "has 'x'; expected a number"),
        (
            "normals",
            {"axes": ["right", "upp", "viewer"]},
            r"axes = .*expected where .* did you mean 'up'",
        ),
        ("normals", {"axes": ["right", "left", "viewer"]}, "Each direction once"),
        ("semseg", {"values": [0], "palette": ["#000000"], "classes": 1}, "values and a palette"),
    ],
)
def test_what_a_task_cannot_be(tmp_path, task, keys, said):
    root = folder(tmp_path, cells(0, 1, dtype=np.uint16))
    with pytest.raises(DataError, match=said):
        described(root, task, **keys)


def test_a_value_and_a_colour_that_nothing_names(tmp_path):
    root = folder(tmp_path, cells(7, 9))
    said = (
        r"maps.a.png holds the value 9 in 12 pixels, first in row 0, column 1; \[tasks.semseg\] of "
        r"the description doesn't name it. Name it there, list it in ignore, or set others ="
    )
    with pytest.raises(DataError, match=said):
        first(root, values={"7": "road"})
    root = folder(tmp_path / "c", cells([128, 64, 128], [128, 64, 127]))
    said = r"the colour #80407f in 12 pixels.* Nearest is #804080. A file that was saved as JPEG"
    with pytest.raises(DataError, match=said):
        first(root, palette={"road": "#804080"})
    with pytest.raises(DataError, match=r"the values 3, 2 in .*doesn't name them \(2 classes\)"):
        first(folder(tmp_path / "d", cells(0, 2, 3, 3)), classes=2, ignore=[1])
    with pytest.raises(
        DataError, match=r"holds class 3; the description declares 2 classes of semseg"
    ):
        first(tmp_path / "d", classes=2)


def test_a_problem_stops_nothing_else_in_a_check(tmp_path):
    root = folder(tmp_path, cells(0, 1))
    save(root / "maps" / "b.png", cells(0, 5))
    (root / "dense.toml").write_text(TOML)
    (problem,) = check_data(root).problems
    assert problem.kind == "values" and "dense.toml declares 2 classes" in problem.reason


def test_what_is_undeclared_is_to_be_said_in_the_description(tmp_path):
    root = folder(tmp_path, cells(0, 5))
    (root / "dense.toml").write_text(TOML.replace('classes = ["a", "b"]', ""))
    assert tasks_of(open_data(root, "train"))["semseg"].channels == 6
    (note,) = check_data(root).notes
    assert "dense.toml: classes = [names] or 6 in [tasks.semseg]" in note
    far = folder(tmp_path / "far", cells(2000, 3000, dtype=np.uint16))
    depth = '[tasks.depth]\nlabels = "maps/{id}.png"\nunit = "m"\n'
    (far / "dense.toml").write_text(f"{TOML.split('[tasks')[0]}\n{depth}")
    (problem,) = check_data(far).problems
    assert "Correct unit or scale in [tasks.depth] of" in problem.reason


def test_a_reader_of_ones_own(tmp_path, monkeypatch):
    class Doubled:
        container = False

        def read(self, path, root, values, *, colours):
            return 2 * np.asarray(Image.open(path))

        def ids(self, path):
            return None

    monkeypatch.setattr(readers, "READERS", dict(readers.READERS))
    register_reader("doubled", Doubled)
    assert first(folder(tmp_path, cells(0, 1)), classes=3, reader="doubled")[:2] == [0, 2]


def test_a_ready_name_is_no_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "voc").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match="the description of voc doesn't say where the set is; pass"
    ):
        DescribedFolder("voc", "train")


def test_like_takes_over_and_changes():
    how = read_description({"like": "cityscapes", "tasks": {"semseg": {"labels": "x/{id}.png"}}})
    assert how.tasks["semseg"].labels == "x/{id}.png" and how.tasks["semseg"].number == 19
    assert how.images.pattern.startswith("leftImg8bit") and "depth" in how.tasks
    with pytest.raises(DataError, match="like = 'citiscapes'; did you mean 'cityscapes'"):
        read_description({"like": "citiscapes"})
    with pytest.raises(
        DataError, match="'vok' is no ready description, file or folder; did you mean"
    ):
        read_description("vok")


def test_no_task_no_description():
    with pytest.raises(DataError, match="describes no task"):
        Description.of({"images": "{id}.png", "tasks": {}})
    with pytest.raises(DataError, match=r"has no 'tasks', which it needs"):
        Description.of({"images": "{id}.png"})


# ------------------------------------------------------------------------------ facts of layouts


@pytest.mark.parametrize(
    ("layout", "image", "label", "held"),
    [
        (
            "cityscapes",
            "leftImg8bit/train/a/a_leftImg8bit.png",
            "gtFine/train/a/a_gtFine_labelIds.png",
            {
                7: "road",
                8: "sidewalk",
                11: "building",
                24: "person",
                26: "car",
                33: "bicycle",
                0: None,
                9: None,
                29: None,
            },
        ),
        (
            "ade20k",
            "images/training/a.jpg",
            "annotations/training/a.png",
            {0: None, 1: "wall", 3: "sky", 13: "person", 21: "car", 150: "flag"},
        ),
        (
            "coco_stuff",
            "train2017/a.jpg",
            "stuffthingmaps/train2017/a.png",
            {
                0: "person",
                12: "stop sign",
                89: "toothbrush",
                91: "banner",
                123: "grass",
                181: "wood",
                255: None,
            },
        ),
        (
            "taskonomy",
            "b/rgb/a_domain_rgb.png",
            "b/segment_semantic/a_domain_segmentsemantic.png",
            {0: None, 1: "background", 2: "bottle", 17: "vase"},
        ),
    ],
)
def test_numbers_in_files_are_the_classes_that_their_sets_say(tmp_path, layout, image, label, held):
    save(tmp_path / image, cells([1, 2, 3]))
    save(tmp_path / label, cells(*held))
    how = read_description(layout)
    if layout == "taskonomy":  # one building can't be shared out
        (tmp_path / "train.txt").write_text("b\n")
        lists = {"train": SplitDescription(list="train.txt", line="{building}")}
        how = replace(how, splits=lists)
    data = DescribedFolder(how, "train", ["semseg"], root=tmp_path)
    names = data.classes["semseg"]
    found = data[0]["semseg"].flatten()[: len(held)].tolist()
    assert [None if c == 255 else names[c] for c in found] == list(held.values())


def test_nyu_and_panoptic_numbers():
    nyu = read_description("nyuv2_mat").tasks["semseg"]
    assert len(nyu.values) == 895 and nyu.values[0] == "ignore"
    for number, name in {3: "cabinet", 4: "ceiling", 5: "chair", 11: "floor", 21: "wall"}.items():
        assert nyu.classes[nyu.values[number]] == name
    panoptic = read_description("coco_panoptic").tasks["semseg"]
    assert panoptic.values["1"] == "person" and panoptic.values["200"] == "rug-merged"
    assert list(panoptic.values)[79:81] == ["90", "92"] and panoptic.number == 133


def test_a_range_may_have_as_many_values_as_there_are_colours(monkeypatch):
    monkeypatch.setattr(codes, "_LARGEST", 4)
    assert codes.numbers_of(["1-4"], "here") == [1, 2, 3, 4]
    with pytest.raises(DataError, match="here has 1 to 5; expected at most 4 values"):
        codes.numbers_of(["1-5"], "here")
