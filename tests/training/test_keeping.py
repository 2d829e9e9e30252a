"""What is written of a run: no copy of the state is made, and a full disk is our error."""

from __future__ import annotations

import csv
import gc
import io
import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from small_run import make_trainer

from peft_dense.errors import CheckpointError
from peft_dense.training import Checkpoints, Recipe
from peft_dense.training.folder_lock import FolderLock
from peft_dense.training.log import Log
from peft_dense.training.memory import peak_memory, reset_peak_memory
from peft_dense.training.run_folder import (
    Opened,
    clear_run,
    identify,
    open_run,
    read_progress,
    read_weights,
)

CPU = torch.device("cpu")
MIB = 2**20


def test_a_state_is_written_and_read_without_a_copy_of_it(tmp_path: Path) -> None:
    state = {f"weight {index}": torch.full((2 * MIB,), float(index)) for index in range(16)}
    size = sum(value.nbytes for value in state.values())  # 128 MiB in pieces of 8
    states = Checkpoints(tmp_path)
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    if before is None:
        pytest.skip("this system doesn't tell peaks")
    states.save(1, state)
    after = peak_memory(CPU)
    assert after is not None and after - before < size / 4
    found = states.newest()
    assert found is not None and all(torch.equal(found[1][k], v) for k, v in state.items())
    del found
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    states.newest()
    after = peak_memory(CPU)
    assert before is not None and after is not None and after - before < 1.25 * size


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file may be longer, as if the disk had no more room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)


def test_a_log_on_a_full_disk(tmp_path: Path) -> None:
    log = Log(tmp_path)
    scores = {f"task {index}": {"loss": 0.5} for index in range(99)}
    with full_disk((tmp_path / "log.csv").stat().st_size), pytest.raises(CheckpointError) as error:
        log(1, "train", scores)
    assert "log.csv" in str(error.value) and "Make room" in str(error.value)
    assert not left_open(tmp_path)


def left_open(folder: Path) -> list[str]:
    """Files of a folder that some object still holds open."""
    opened = [each for each in gc.get_objects() if issubclass(type(each), io.FileIO)]
    names = (str(each.name) for each in opened if not each.closed)
    return sorted(name for name in names if name.startswith(str(folder)))


def test_a_log_closes_what_it_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Log(tmp_path):
        assert left_open(tmp_path)
    assert not left_open(tmp_path)
    # The second of its files can't be opened.
    monkeypatch.setattr(socket, "gethostname", lambda: "no/folder")
    with pytest.raises(CheckpointError, match="TensorBoard") as error:
        Log(tmp_path)
    assert error.tb and not left_open(tmp_path)


def test_an_error_in_a_run_is_not_hidden_by_closing_its_log(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log._file.write("what the file has no room for " * 99)
    with pytest.raises(KeyError), full_disk(40), log:
        raise KeyError


def test_tensorboard_reads_what_is_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start = time.time()
    for begin, end in ((0, 3), (2, 4)):  # the second goes on from step 2
        with Log(tmp_path, begin) as log:
            for step in range(begin + 1, end + 1):
                log(step, "train", {"sal": {"loss": step + begin / 10}})
            log.picture(end, Image.new("RGB", (4, 4)))
    found = EventAccumulator(str(tmp_path)).Reload()
    scalars = [(each.step, round(each.value, 3)) for each in found.Scalars("train/sal/loss")]
    assert scalars == [(1, 1.0), (2, 2.0), (3, 3.2), (4, 4.2)]
    assert found.Images("grid")[-1].step == 4
    assert all(start <= each.wall_time <= time.time() for each in found.Scalars("train/sal/loss"))


def test_a_grid_on_a_full_disk_leaves_the_former(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.picture(1, Image.effect_noise((200, 200), 99).convert("RGB"))
        before = (tmp_path / "grid.png").read_bytes()
        with full_disk(2000), pytest.raises(CheckpointError, match=r"grid\.png"):
            log.picture(2, Image.effect_noise((200, 200), 99).convert("RGB"))
    assert (tmp_path / "grid.png").read_bytes() == before
    assert not list(tmp_path.glob(".grid*"))


def test_a_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(CheckpointError, match="can't make the folder"):
            FolderLock(folder).take()


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    first, second = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    with second:  # nothing is held before it is taken
        with first:
            first.take()
            with pytest.raises(CheckpointError, match=r"another process is training in .*run\."):
                second.take()
        second.take()
    with first:
        first.take()


def test_a_run_holds_its_folder_while_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    options = {"steps": 1, "batch": 2}
    with FolderLock(tmp_path) as other:
        other.take()
        before = sorted(tmp_path.iterdir())
        with pytest.raises(CheckpointError, match="another process is training in"):
            make_trainer(tmp_path, restart=True, **options).fit()
        assert sorted(tmp_path.iterdir()) == before
    assert make_trainer(tmp_path, **options).fit()["steps"] == 1
    with FolderLock(tmp_path) as other:  # a run that has ended leaves it
        other.take()


def test_what_differs_is_named_with_the_ways_out(tmp_path: Path) -> None:
    states = Checkpoints(tmp_path / "states")
    open_run(tmp_path, identify(Recipe(lr=0.1), {"backbone": "a"}), states)
    with pytest.raises(CheckpointError) as error:
        open_run(tmp_path, identify(Recipe(lr=0.2), {"backbone": "b"}), states)
    said = str(error.value)
    assert "lr is 0.1 there, 0.2 here" in said and "backbone is 'a' there, 'b' here" in said
    assert "--restart" in said and "another folder" in said
    # What doesn't change what is learned may change.
    open_run(tmp_path, identify(Recipe(lr=0.1, workers=3), {"backbone": "a"}), states)


@pytest.mark.parametrize("name", ["run.json", "results.json"])
def test_damaged_files_of_a_run_are_named(tmp_path: Path, name: str) -> None:
    mark, states = identify(Recipe(), {}), Checkpoints(tmp_path / "states")
    open_run(tmp_path, mark, states)
    (tmp_path / name).write_text("{")
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        open_run(tmp_path, mark, states)


def test_missing_or_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--restart"):
        read_weights(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_weights(tmp_path)


def test_a_fork_begins_where_a_run_is(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run\.json"):
        read_progress(tmp_path)
    states = Checkpoints(tmp_path / "states")
    open_run(tmp_path, identify(Recipe(), {}), states)
    with pytest.raises(CheckpointError, match="no state and no last/"):
        read_progress(tmp_path)
    states.save(3, {"model": {"a": torch.ones(2)}})
    assert read_progress(tmp_path)["a"].tolist() == [1, 1]
    (tmp_path / "last").mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "last" / "x.safetensors")
    (tmp_path / "results.json").write_text("{}")
    assert read_progress(tmp_path)["a"].tolist() == [0, 0]


def test_clearing_leaves_what_is_not_the_runs(tmp_path: Path) -> None:
    for name in ("states", "best", "last", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("")
    for name in ("run.json", "results.json", "grid.png", "log.csv", "own.csv"):
        (tmp_path / name).write_text("")
    clear_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "own.csv"]
    assert Opened().results is None


def test_a_log_of_a_new_run_begins_anew(tmp_path: Path) -> None:
    for _ in range(2):
        with Log(tmp_path) as log:
            log(1, "train", {"sal": {"loss": 1.0}})
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2


def test_a_log_has_a_line_per_metric(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log(3, "val", {"sal": {"mIoU": 50.0, "maxF": 60.0}})
    with (tmp_path / "log.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["3", "val", "sal", "mIoU", "50"],
            ["3", "val", "sal", "maxF", "60"],
        ]
