"""A run ends the same whatever happens to it: kills, full disks, several processes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from launching import OPTIONS, assert_same_run, finish, rows, start, weights

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from small_run import TASKS, make_trainer

from peft_dense.training import evaluate


def test_killed_twice_ends_with_the_same_bits(whole: Path, tmp_path: Path) -> None:
    for step in (1, 3, 6):  # before any state, after one, at the very end
        assert start(tmp_path, signal=9, signal_at=step, **OPTIONS).returncode == -9
    assert not (tmp_path / "results.json").exists()
    finish(tmp_path, **OPTIONS)
    assert_same_run(whole, tmp_path)
    assert not list((tmp_path / "states").glob("*.ckpt"))  # a finished run needs none


@pytest.mark.parametrize(("step", "file"), [(4, "step_00000004.ckpt"), (3, "best")])
def test_a_full_disk_is_said_and_nothing_is_lost(
    whole: Path, tmp_path: Path, step: int, file: str
) -> None:
    done = start(tmp_path, full_at=step, **OPTIONS)
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and "can't write" in said and file in said, done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step_00000002.ckpt"]
    finish(tmp_path, **OPTIONS)
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_last_state_is_set_aside(whole: Path, tmp_path: Path, damage: str) -> None:
    assert start(tmp_path, signal=9, signal_at=5, **OPTIONS).returncode == -9
    last = tmp_path / "states" / "step_00000004.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    harm = {"cut": bytes(content[:-100]), "flipped": bytes(content), "emptied": b""}
    last.write_bytes(harm[damage])
    with (tmp_path / "log.csv").open("a") as file:
        file.write("5,train,sal")  # a line that was being written
    done = start(tmp_path, **OPTIONS)
    assert done.returncode == 0 and "step_00000004.ckpt isn't whole" in done.stderr
    assert_same_run(whole, tmp_path)
    assert (tmp_path / "states" / "step_00000004.ckpt.damaged").exists()


def test_a_finished_run_is_read_not_repeated(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.glob("*.json")}
    assert start(whole, **OPTIONS).returncode == 0
    results = whole / "results.json"
    assert results.stat().st_mtime_ns == before[results]


def test_a_finished_folder_gives_the_trained_model(whole: Path) -> None:
    """Not only its results: who calls fit() goes on with the model."""
    trainer = make_trainer(whole, **OPTIONS)
    before = {name: value.clone() for name, value in trainer.model.trainable_state_dict().items()}
    result = trainer.fit()
    expected = weights(whole)
    found = trainer.model.trainable_state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(not torch.equal(before[name], value) for name, value in expected.items())
    scores = evaluate(trainer.model, trainer.tasks, trainer.val)
    assert scores.keys() == result["scores"].keys() == set(TASKS)
    for name, metrics in result["scores"].items():
        assert scores[name] == pytest.approx(metrics, nan_ok=True)


def test_a_restart_drops_the_run_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "notes.txt").write_text("mine")
    result = make_trainer(tmp_path, restart=True, **{**OPTIONS, "steps": 2, "lr": 0.1}).fit()
    assert result["steps"] == 2 and (tmp_path / "notes.txt").read_text() == "mine"
    assert {row[0] for row in rows(tmp_path)[1:]} <= {"1", "2"}


def test_another_recipe_is_refused(whole: Path) -> None:
    done = start(whole, **{**OPTIONS, "lr": 0.1})
    assert done.returncode == 2
    assert "holds another run: lr is 0.005 there, 0.1 here" in done.stderr
    assert "another folder (--out)" in done.stderr and "--restart" in done.stderr


# A batch norm takes the mean away: what only shifts its input has no gradient but rounding, of
# which Adam makes full steps. No output depends on these.
SHIFTS = re.compile(r"^norms\..*\.bias$|\.project\.\d+\.bias$|\.norm\.running_mean$")


@pytest.mark.parametrize("method", ["vmt_lite", "polyhistor_lite"])
def test_two_processes_train_as_one(tmp_path: Path, method: str) -> None:
    """Losses, weights and metrics; shares are uneven (3 images) and labels partial."""
    options = {"method": method, "batch": 3, "steps": 4, "lr": 2e-4}
    one = finish(tmp_path / "one", **options)
    two = finish(tmp_path / "two", processes=2, **options)
    assert (one["processes"], two["processes"]) == (1, 2)
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two", 2)
    for name, value in first.items():
        if not SHIFTS.search(name):
            torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)
    for task, metrics in one["scores"].items():
        assert two["scores"][task] == pytest.approx(metrics, rel=0.01, abs=1, nan_ok=True)
    losses = [
        [float(row[4]) for row in rows(tmp_path / run) if row[1] == "train"]
        for run in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert len(losses[0]) > 4


def test_a_bad_image_stops_with_its_name_or_is_skipped(tmp_path: Path) -> None:
    for workers in (0, 2):
        done = start(tmp_path / "a", bad=3, workers=workers)
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and last == "error: can't read scene 3"
        assert "Traceback" not in done.stderr
    result = finish(tmp_path / "a", bad=3, skip_bad=True)  # the same folder goes on
    assert result["skipped"] == ["can't read scene 3"]
