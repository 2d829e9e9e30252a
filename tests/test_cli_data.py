"""``peft-dense data``: what it makes, what it prints, and its exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peft_dense.cli import main

SMALL = ("--train", "2", "--val", "1", "--size", "24", "32")


def run(capsys, *argv: object, status: int = 0) -> str:
    assert main([str(word) for word in ("data", *argv)]) == status
    captured = capsys.readouterr()
    assert not captured.err
    return captured.out


def fails(capsys, *argv: object) -> str:
    """The error that the command ends with: one line, and status 2."""
    assert main([str(word) for word in ("data", *argv)]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "folder"
    assert main(["data", "make", str(root), *SMALL, "--layout", "folder"]) == 0
    return root


@pytest.fixture
def broken(whole: Path, tmp_path: Path) -> Path:
    """A folder with 22 images that aren't there and one label that can't be read."""
    root = shutil.copytree(whole, tmp_path / "broken")
    with (root / "val.txt").open("a") as file:
        file.writelines(f"ghost{index:02}\n" for index in range(22))
    next((root / "sal").iterdir()).write_bytes(b"nothing")
    return root


def test_make_says_what_it_made_and_check_finds_it_sound(capsys, tmp_path):
    root = tmp_path / "archive"
    made = run(capsys, "make", root, *SMALL, "--seed", 5)
    assert made == f"{root / 'PASCAL_MT'}: 2 training and 1 validation images\n"
    out = run(capsys, "check", root)
    assert out.startswith(f"{root}: the multi-task PASCAL-Context archive\n")
    assert out.endswith("No problems.\n")


def test_seed_and_size_reach_the_files(capsys, tmp_path):
    images = []
    for seed in (0, 1):
        run(capsys, "make", tmp_path / str(seed), *SMALL, "--seed", seed, "--layout", "folder")
        images.append(Image.open(tmp_path / str(seed) / "images" / "2008_000002.jpg"))
        assert 21 <= images[-1].height <= 24 and 28 <= images[-1].width <= 32
    assert images[0].tobytes() != images[1].tobytes()


def test_tables_hold_what_json_holds(capsys, whole):
    held = json.loads(run(capsys, "check", whole, "--json"))
    rows = [line.split() for line in run(capsys, "check", whole).splitlines()]
    assert ["images", "2", "1"] in rows and held["images"] == {"train": 2, "val": 1}
    assert held["sound"] is True and held["problems"] == [] and held["picture"] is None
    table = rows[rows.index(["semseg", "train", "images", "val", "images"]) + 1 :]
    train, val = (held["labels"][split]["semseg"]["classes"] for split in ("train", "val"))
    for row, name in zip(table, train, strict=False):
        pairs = ((f"{one[name]['share']:.2%}", str(one[name]["images"])) for one in (train, val))
        assert row == [name, *(text for pair in pairs for text in pair)]
    low, high = held["labels"]["train"]["depth"]["range"]
    (depth,) = (row for row in rows if row[:1] == ["depth:"])
    assert depth[1:6] == [f"{low:.3g}", "to", f"{high:.3g}", "in", "train;"]


def test_without_a_file_and_ignored_are_told(capsys, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "lacking")
    (first, second), (third,) = ((root / f"{s}.txt").read_text().split() for s in ("train", "val"))
    (root / "edge" / f"{first}.png").unlink()
    for name in (second, third):
        path = root / "edge" / f"{name}.png"
        label = np.array(Image.open(path))
        label[: len(label) if name == third else 1] = 255
        Image.fromarray(label).save(path)
    share = f"{1 / Image.open(root / 'edge' / f'{second}.png').height:.1%}"
    out = " ".join(run(capsys, "check", root, status=1).split())
    assert f"edge 1 (1 without a file, {share} of pixels ignored)" in out
    assert "0 (1 all ignored, 100.0% of pixels ignored)" in out
    assert f"look wrong as a whole: 1 val edge: {root}/edge: no pixel of the 1 labels" in out


def test_problems_are_named_and_long_lists_cut(capsys, broken):
    out = run(capsys, "check", broken, status=1)
    lines = out.splitlines()
    start = lines.index("missing files: 22")
    named = lines[start + 1 : start + 21]
    assert all(f"  val ghost{i:02} image: no image " in line for i, line in enumerate(named))
    assert lines[start + 21] == "  and 2 more"
    assert lines[start + 22] == "files that can't be read: 1"
    assert "sal: can't read" in lines[start + 23]
    assert "No problems" not in out
    held = json.loads(run(capsys, "check", broken, "--json", status=1))
    assert held["sound"] is False and len(held["problems"]) == 23


def test_split_and_tasks_narrow_the_check(capsys, broken):
    run(capsys, "check", broken, "--split", "train", "--tasks", "semseg,depth")
    held = json.loads(run(capsys, "check", broken, "--split", "train", "--json", status=1))
    assert list(held["labels"]) == ["train"]
    assert [problem["about"] for problem in held["problems"]] == ["sal"]


def test_tasks_of_ones_own_are_checked_by_their_kind(capsys, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "own")
    for path in (root / "sal").iterdir():
        label = 255 * np.array(Image.open(path))
        (root / "roofs").mkdir(exist_ok=True)
        Image.fromarray(label).save(root / "roofs" / path.name)
    shutil.rmtree(root / "sal")
    held = json.loads(run(capsys, "check", root, "--tasks", "roofs=binary,edge", "--json"))
    assert held["labels"]["val"]["roofs"]["classes"]["marked"]["share"] > 0.01
    out = run(capsys, "check", root, "--tasks", "roofs", status=1)
    assert "nothing but class 0 (0) where they aren't ignored (255)" in out
    assert "no names or number of classes" in out.splitlines()[-1]
    assert "labels of kind edge" in fails(capsys, "check", root, "--tasks", "edge=depth")
    assert "unknown kind of labels" in fails(capsys, "check", root, "--tasks", "roofs=masks")
    assert "names a task twice" in fails(capsys, "check", root, "--tasks", "edge,edge")


def test_the_picture_has_a_row_a_sample(capsys, whole, tmp_path):
    heights = []
    for samples in (1, 3):
        file = tmp_path / f"{samples}.png"
        argv = ("check", whole, "--split", "train,val", "--picture", file, "--samples", samples)
        assert f"picture: {file}" in run(capsys, *argv)
        heights.append(Image.open(file).height)
    assert heights[1] > heights[0] + 150
    held = json.loads(run(capsys, "check", whole, "--json", "--picture", file))
    assert held["picture"] == str(file)


def test_describe_says_what_it_guessed_and_what_to_check(capsys, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "own")
    (root / "images").rename(root / "photos")
    (root / "classes.json").unlink()
    dry = run(capsys, "describe", root, "--dry")
    assert 'images = "photos/{id}.jpg"' in dry and not (root / "dense.toml").exists()
    out = run(capsys, "describe", root)
    assert f"draft: {root / 'dense.toml'}" in out and "peft-dense data check" in out
    assert "check: semseg: names of the" in out and "images: photos/{id}.jpg (3 files" in out
    assert run(capsys, "check", root).startswith(f"{root}: a data set, read by {root}/dense.toml\n")
    assert "stays as it is; pass --overwrite" in fails(capsys, "describe", root)
    run(capsys, "describe", root, "--overwrite")
    run(capsys, "describe", root, "--out", tmp_path / "mine.toml")
    assert "No problems." in run(capsys, "check", tmp_path / "mine.toml")


def test_a_ready_description_is_called_by_its_name(capsys, tmp_path):
    root = tmp_path / "city"
    run(capsys, "make", root, *SMALL, "--layout", "cityscapes")
    out = run(capsys, "check", f"cityscapes:{root}")
    assert "a data set, read by the description of cityscapes" in out and out.endswith(
        "problems.\n"
    )
    assert "did you mean 'cityscapes'" in fails(capsys, "check", f"cityscape:{root}")


def test_progress_is_shown_to_people_alone(capsys, whole, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["data", "check", str(whole)]) == 0
    assert capsys.readouterr().err == "\rtrain 1 of 2\rtrain 2 of 2\n\rval 1 of 1\n"


def test_the_other_commands_do_without_what_data_needs():
    code = "import sys, peft_dense.cli; sys.exit({'scipy', 'skimage'} & {*sys.modules} != set())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------- errors


def test_errors_are_one_line(capsys, whole, tmp_path):
    assert "no folder" in fails(capsys, "check", tmp_path / "nowhere")
    assert "is no data set" in fails(capsys, "check", tmp_path)
    assert "no list" in fails(capsys, "check", whole, "--split", "test")
    assert "did you mean 'semseg'" in fails(capsys, "check", whole, "--tasks", "semsge")
    assert "exists and isn't an empty folder" in fails(capsys, "make", whole)
    assert "at least one image" in fails(capsys, "make", tmp_path / "new", "--val", 0)
    assert "did you mean 'folder'" in fails(capsys, "make", tmp_path / "x", "--layout", "foldr")
    picture = ("--picture", tmp_path / "no" / "folder.png")
    assert "can't write" in fails(capsys, "check", whole, *picture)
    assert "samples=0" in fails(capsys, "check", whole, *picture, "--samples", 0)
    assert "workers=-1" in fails(capsys, "check", whole, "--workers", -1)


def test_a_picture_of_nothing(capsys, whole, tmp_path):
    root = shutil.copytree(whole, tmp_path / "empty")
    for image in (root / "images").iterdir():
        image.unlink()
    assert "nothing to draw" in fails(capsys, "check", root, "--picture", tmp_path / "out.png")


@pytest.mark.parametrize(
    ("argv", "message"),
    [(("data",), "COMMAND"), (("data", "make"), "ROOT"), (("data", "check", "x", "--size"), "")],
)
def test_arguments_that_cannot_be_read(capsys, argv, message):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
