"""Results on disk: what other tools read again, pictures, nothing half-written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from peft_dense.data.labels import read_array, read_label
from peft_dense.errors import DataError
from peft_dense.predicting import Prediction
from peft_dense.predicting.painting import legend, span_of
from peft_dense.predicting.sheet import ContactSheet
from peft_dense.predicting.writing import check_out, save_prediction
from peft_dense.tasks import Task, task
from peft_dense.tasks.drawing import palette

TASKS: dict[str, Task] = {
    "semseg": task("semseg", channels=4, classes=("background", "sky", "road", "car")),
    "places": task("places", kind="segmentation", channels=3, classes=("sea", "lake", "land")),
    "many": task("many", kind="segmentation", channels=300),
    "roofs": task("roofs", kind="binary"),
    "edge": task("edge"),
    "normals": task("normals"),
    "depth": task("depth"),
}


def found(name: str = "a", height: int = 20, width: int = 30, seed: int = 0) -> Prediction:
    draw = torch.Generator().manual_seed(seed)
    labels: dict[str, torch.Tensor] = {}
    for key, each in TASKS.items():
        raw = torch.randn(1, each.channels, height, width, generator=draw)
        label = each.decide(raw)[0]
        small = torch.uint8 if each.channels <= 256 else torch.int32
        labels[key] = label if label.is_floating_point() else label.to(small)
    image = torch.randint(0, 256, (3, height, width), generator=draw).byte()
    return Prediction(name, f"{name}.jpg", image, labels, TASKS, 0.01)


def test_label_maps_are_read_back_as_labels(tmp_path: Path) -> None:
    one = found("deep/a")
    files = save_prediction(one, tmp_path)
    assert all(file.is_file() for file in files)
    assert not list(tmp_path.rglob(".*")), "what was staged is gone"
    for name in ("semseg", "places", "many"):
        label = read_label(tmp_path / name / "deep/a.png", TASKS[name].labels)
        assert torch.equal(label, one.labels[name].long())
    for name in ("roofs", "edge"):
        grey = read_array(tmp_path / name / "deep/a.png")
        assert grey.dtype == np.uint8
        assert np.abs(grey / 255 - one.labels[name].numpy()).max() <= 0.5 / 255 + 1e-6
    depth = np.load(tmp_path / "depth/deep/a.npy")
    normals = np.load(tmp_path / "normals/deep/a.npy")
    assert depth.dtype == normals.dtype == np.float32 and normals.shape == (20, 30, 3)
    assert np.array_equal(depth, one.labels["depth"].numpy())
    back = read_label(tmp_path / "normals/deep/a.npy", "normals")
    torch.testing.assert_close(back, one.labels["normals"])
    coloured = np.asarray(Image.open(tmp_path / "semseg/deep/a.png").convert("RGB"))
    assert np.array_equal(coloured, palette()[one.labels["semseg"].long()].numpy())


def test_pictures_show_every_task(tmp_path: Path) -> None:
    one = found(height=200, width=300)
    side, over = one.side_by_side(longest=150), one.side_by_side(0.5, longest=150)
    assert side.width * side.height >= (1 + len(TASKS)) * 150 * 100 and side.width <= 2000
    assert np.asarray(side).std() > 10 and not np.array_equal(np.asarray(side), np.asarray(over))
    for name in TASKS:
        assert one.map(name).size == one.overlay(name).size == one.photo().size == (300, 200)
        clear = np.asarray(one.overlay(name, opacity=0.0))
        assert np.array_equal(clear, np.asarray(one.photo()))
    # Background lets the image through; a first class that is a thing doesn't.
    photo = np.asarray(one.photo())
    for name, same in (("semseg", True), ("places", False)):
        first = one.labels[name].numpy() == 0
        covered = np.asarray(one.overlay(name, opacity=1.0))
        assert np.array_equal(covered[first], photo[first]) is same
        assert np.array_equal(covered[~first], np.asarray(one.map(name))[~first])


def test_a_picture_of_depth_spreads_its_colours_over_what_is_there() -> None:
    """A room's and a street's depths look alike, and the legend says which metres they are."""
    slope = torch.linspace(1, 3, 200).expand(100, 200)
    pictures = []
    for scale in (1.0, 20.0):
        one = found(height=100, width=200)
        one.labels["depth"] = scale * slope
        pictures.append(np.asarray(one.map("depth")).astype(int))
        first, last = (
            name for _, name in legend(one.tasks["depth"], slope, span=span_of(scale * slope))
        )
        assert (first, last) == (f"{1.02 * scale:.3g} m", f"{2.98 * scale:.3g} m")
    assert abs(pictures[0] - pictures[1]).max() <= 2
    assert pictures[0][0, 0].tolist() == [40, 20, 90] and pictures[0][0, -1].tolist() == [
        250,
        230,
        60,
    ]
    flat = found(height=8, width=9)
    flat.labels["depth"] = torch.full((8, 9), 2.0)
    assert np.asarray(flat.map("depth")).std(axis=(0, 1)).max() == 0


def test_a_contact_sheet_is_spread_over_all_and_holds_few() -> None:
    sheet = ContactSheet(rows=4, tile=20)
    assert sheet.draw() is None
    for number in range(50):
        sheet.add(found(str(number), 20 + number % 3, 30))
        assert len(sheet._kept) <= 8
    names = [int(note.split()[0]) for note, _ in sheet._kept]
    gaps = {b - a for a, b in itertools.pairwise(names)}
    assert names[0] == 0 and names[-1] >= 40 and len(gaps) == 1
    drawn = sheet.draw()
    assert drawn is not None and np.asarray(drawn).std() > 10


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path: Path) -> None:
    check_out(tmp_path, overwrite=False)
    check_out(tmp_path / "new", overwrite=False)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="--overwrite"):
        check_out(tmp_path, overwrite=False)
    check_out(tmp_path, overwrite=True)
    with pytest.raises(DataError, match="is a file"):
        check_out(tmp_path / "mine.txt", overwrite=True)


def test_a_disk_that_refuses_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_prediction(found(), tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DataError, match=r"can't write .*semseg/a\.png.*No space left"):
        save_prediction(found(seed=1), tmp_path)
    after = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert after == before
