"""What would mislead training is named before it, by `inspect_labels` and by `data check`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peft_dense.cli import main
from peft_dense.data import Cached, DenseFolder, Scenes, inspect_labels
from peft_dense.data.checking.check import check_data
from peft_dense.data.checking.findings import depth_doubt

H, W = 6, 8
WRONG = {
    "no positive": ("sal", np.zeros((H, W), np.uint8), r"none of the 3 labels .*255 alone in the"),
    "no label": ("semseg", np.full((H, W), 255, np.uint8), r"no pixel of the 3 labels .* counts"),
    "one class": (
        "semseg",
        np.zeros((H, W), np.uint8),
        r"3 labels .* hold nothing but sky \(0\) ",
    ),
    "depth unit": ("depth", np.full((H, W), 2500, np.uint16), r"up to 2,500 m.*are they millimet"),
}


def folder(root: Path, task: str, label: np.ndarray, ending: str = "png") -> Path:
    """Three images with the same label."""
    for place in ("images", task):
        (root / place).mkdir()
    for name in "abc":
        image = np.full((*label.shape[:2], 3), 9, np.uint8)
        Image.fromarray(image).save(root / "images" / f"{name}.png")
        if ending == "npy":
            np.save(root / task / f"{name}.npy", label)
        else:
            Image.fromarray(label).save(root / task / f"{name}.png")
    (root / "train.txt").write_text("a\nb\nc\n")
    (root / "classes.json").write_text(json.dumps({"semseg": ["sky", "sea"]}))
    return root


@pytest.mark.parametrize("what", WRONG)
def test_labels_that_mislead_are_named(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task, label, said = WRONG[what]
    root = folder(tmp_path, task, label, "npy" if task == "depth" else "png")
    (finding,) = inspect_labels(DenseFolder(root, "train", [task]))
    assert (finding.task, finding.what) == (task, what)
    assert finding.serious == (what != "depth unit")
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(str(finding))
    at = root / task / "a.npy" if what == "depth unit" else root / task
    assert finding.file == at and str(at) in finding.message
    cached = Cached(DenseFolder(root, "train", [task]))  # what training may hand over
    assert inspect_labels(cached) == [finding]
    held = check_data(root, splits=["train"])
    assert [(problem.kind, problem.about) for problem in held.problems] == [("labels", task)]
    assert held.problems[0].reason == str(finding)
    assert main(["data", "check", str(root), "--split", "train"]) == 1
    assert "labels that look wrong as a whole: 1\n" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["sal", "semseg", "depth"])
def test_sound_labels_have_no_findings(tmp_path: Path, task: str) -> None:
    label = np.resize(np.array([0, 1, 1, 255], np.uint8), (H, W))
    label = 250 * label.astype(np.uint16) if task == "depth" else label
    root = folder(tmp_path, task, label)
    assert inspect_labels(DenseFolder(root, "train", [task])) == []
    assert check_data(root).problems == []


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path, "semseg", np.resize(np.array([0, 1], np.uint8), (H, W)))
    Image.fromarray(np.full((H, W), 31, np.uint8)).save(root / "semseg" / "b.png")
    (finding,) = inspect_labels(DenseFolder(root, "train", ["semseg"]))
    assert finding.what == "unreadable" and finding.serious
    assert "b.png holds class 31" in finding.message and "declares 2 classes" in finding.message


def test_files_of_which_none_can_be_used_are_not_taken_for_missing_labels(tmp_path: Path) -> None:
    root = folder(tmp_path, "semseg", np.resize(np.array([0, 1], np.uint8), (H, W)))
    for path in (root / "images").iterdir():
        path.write_bytes(b"none")
    first, *rest = inspect_labels(DenseFolder(root, "train", ["semseg"]))
    assert first.what == "no label" and first.serious and "none of the 3 items" in first.message
    assert "a.png" in first.message and [each.what for each in rest] == ["unreadable"] * 3


def test_an_undeclared_number_of_classes_is_noted(tmp_path: Path) -> None:
    root = folder(tmp_path, "semseg", np.resize(np.array([0, 6], np.uint8), (H, W)))
    (root / "classes.json").unlink()
    (finding,) = inspect_labels(DenseFolder(root, "train", ["semseg"]))
    assert finding.what == "undeclared" and not finding.serious
    assert "0 to 6 are in the 3 labels" in finding.message and '{"semseg": 7}' in finding.message
    report = check_data(root)
    assert report.problems == [] and len(report.notes) == 1


def test_serious_findings_come_first_and_no_label_file_is_one(tmp_path: Path) -> None:
    root = folder(tmp_path, "depth", np.full((H, W), 2500, np.uint16), "npy")
    (root / "sal").mkdir()
    found = inspect_labels(DenseFolder(root, "train", ["depth", "sal"]))
    assert [each.what for each in found] == ["no label", "depth unit"]
    assert "sal: there is no label" in str(found[0])


def test_only_some_are_looked_at_and_images_are_not_decoded(tmp_path: Path) -> None:
    root = folder(tmp_path, "sal", np.zeros((H, W), np.uint8))
    mark = np.ones((H, W), np.uint8)
    Image.fromarray(mark).save(root / "sal" / "c.png")
    for name in "abc":  # the head is whole, the pixels are not
        path = root / "images" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:-30])
    data = DenseFolder(root, "train", ["sal"])
    assert inspect_labels(data) == []
    (finding,) = inspect_labels(data, limit=2)  # a and b
    assert "none of the 2 labels" in finding.message


def test_any_data_set_with_tasks_can_be_inspected() -> None:
    scenes = Scenes(3, (24, 32))
    assert inspect_labels(scenes) == []
    cached = Cached(scenes)
    assert inspect_labels(cached) == []
    for data in (scenes, cached):  # whatever a transform leaves of the labels
        data.transform = lambda item: {**item, "sal": 0 * item["sal"]}
        assert data[0]["sal"].sum() == 0 and inspect_labels(data) == []
        data.transform = None
    for item in cached.items:
        item["sal"].zero_()
    (finding,) = inspect_labels(cached)
    assert (finding.task, finding.what) == ("sal", "no positive")


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        ([0.5, 3.0, 80.0], None),
        ([2.0, 101.0], "whole numbers"),
        ([2.0, 100.0], None),
        ([2.5, 101.5], None),
        ([250.5, 300.5, 0.1], "300 m and more|250 m and more"),
        ([0.002, 0.05], "metres saved as if millimetres"),
        ([0.002, 0.15], None),
        ([], None),
    ],
)
def test_depth_is_doubted_where_its_unit_looks_wrong(values: list[float], doubt: str) -> None:
    import re

    import torch

    found = depth_doubt(torch.tensor(values))
    assert (found is None) == (doubt is None)
    assert doubt is None or re.search(doubt, found or "")
