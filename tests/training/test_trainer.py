"""A run ends the same whatever happens to it: kills, full disks, several processes."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

SCRIPT = Path(__file__).with_name("small_run.py")


def start(out: Path, *, processes: int = 1, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), str(out), json.dumps(options)]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launch, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300
    )


def finish(out: Path, **options: Any) -> dict[str, Any]:
    done = start(out, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, Any] = json.loads((out / "results.json").read_text())
    return result


def weights(out: Path, processes: int = 1) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(out / f"weights_{processes}.pt", weights_only=True)
    return state


SPEED = ("images_per_second", "waiting")


def rows(out: Path) -> list[list[str]]:
    with (out / "log.csv").open(newline="") as file:
        return [row for row in csv.reader(file) if row[3] not in SPEED]


def assert_same_run(out: Path, other: Path) -> None:
    first, second = weights(out), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert rows(out) == rows(other)
    scores = [json.loads((o / "results.json").read_text())["scores"] for o in (out, other)]
    assert json.dumps(scores[0]) == json.dumps(scores[1])


OPTIONS = {"drop_path": 0.3, "ema": 0.9}  # everything that draws, everything that averages


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    finish(out, **OPTIONS)
    return out


def test_killed_twice_ends_with_the_same_bits(whole: Path, tmp_path: Path) -> None:
    for step in (1, 3, 6):  # before any state, after one, at the very end
        assert start(tmp_path, signal=9, signal_at=step, **OPTIONS).returncode == -9
    assert not (tmp_path / "results.json").exists()
    finish(tmp_path, **OPTIONS)
    assert_same_run(whole, tmp_path)
    assert not list((tmp_path / "states").glob("*.ckpt"))  # a finished run needs none


def test_a_full_disk_is_said_and_nothing_is_lost(whole: Path, tmp_path: Path) -> None:
    done = start(tmp_path, full_at=4, **OPTIONS)
    assert done.returncode == 2 and "what was there before is whole" in done.stderr, done.stderr
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


def test_another_recipe_is_refused(whole: Path) -> None:
    done = start(whole, **{**OPTIONS, "lr": 0.1})
    assert done.returncode == 2
    assert "holds another run: lr is 0.005 there, 0.1 here" in done.stderr


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
    done = start(tmp_path / "a", bad=3)
    assert done.returncode == 2 and "can't read scene 3" in done.stderr
    result = finish(tmp_path / "a", bad=3, skip_bad=True)  # the same folder goes on
    assert result["skipped"] == ["can't read scene 3"]
