"""Ctrl-C and SIGTERM end a run after its step; its state is whole, its words say how to go on."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from launching import OPTIONS, assert_same_run, finish, start, start_apart

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense.training.stopping import SIGNALS, SignalHeard, SignalListener, Stopped

NAMES = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM"}


def states(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "states").iterdir())


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES.get)
def test_a_signal_ends_a_run_after_its_step(number: int, whole: Path, tmp_path: Path) -> None:
    done = start(tmp_path, signal=number, signal_at=5, **OPTIONS)
    assert done.returncode == 128 + number
    (said,) = [line for line in done.stderr.splitlines() if "stopped by" in line]
    assert f"stopped by {NAMES[signal.Signals(number)]} after step 5 of 6" in said
    assert "same command" in said and str(tmp_path / "states") in said
    assert "Traceback" not in done.stderr
    assert states(tmp_path)[-1] == "step_00000005.ckpt"

    again = start(tmp_path, **OPTIONS)
    assert again.returncode == 0 and "goes on from step 5 of 6" in again.stderr
    assert_same_run(whole, tmp_path)


def test_scoring_is_left_at_once_and_done_when_the_run_goes_on(whole: Path, tmp_path: Path) -> None:
    for step in (3, 6):  # in the middle, and after the last step
        done = start(tmp_path, signal=signal.SIGTERM, score_signal_at=step, **OPTIONS)
        assert done.returncode == 143 and states(tmp_path)[-1] == f"step_{step:08d}.ckpt"
        scored = [line for line in done.stderr.splitlines() if f"step {step}: " in line]
        assert not scored  # left before there was a score
    done = start(tmp_path, **OPTIONS)
    assert done.returncode == 0 and "step 6: semseg mIoU" in done.stderr
    assert_same_run(whole, tmp_path)


def test_a_signal_at_the_last_step_keeps_it(whole: Path, tmp_path: Path) -> None:
    assert start(tmp_path, signal=signal.SIGINT, signal_at=6, **OPTIONS).returncode == 130
    assert states(tmp_path)[-1] == "step_00000006.ckpt"
    assert start(tmp_path, **OPTIONS).returncode == 0
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize("number", SIGNALS, ids=NAMES.get)
def test_a_signal_to_the_loading_workers_too(number: int, whole: Path, tmp_path: Path) -> None:
    """A terminal's Ctrl-C, and a scheduler's SIGTERM, reach every process of the job."""
    options = {**OPTIONS, "workers": 2}
    done = start(tmp_path, signal=number, signal_at=4, signal_to="group", **options)
    assert done.returncode == 128 + number and "Traceback" not in done.stderr, done.stderr
    assert states(tmp_path)[-1] == "step_00000004.ckpt"
    finish(tmp_path, **options)
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGTERM, 1), (signal.SIGTERM, None), (signal.SIGINT, 0)]
)
def test_a_signal_to_one_process_ends_all(number: int, to: int | None, tmp_path: Path) -> None:
    ended = start_apart(tmp_path, 2, signal=number, signal_at=3, signal_to=to, eval_every=6)
    assert [code for code, _ in ended] == [128 + number] * 2, ended
    (name,) = states(tmp_path)[-1:]
    step = int(name[5:13])
    assert step in (3, 4)  # the others hear of it with the losses of the next step
    assert f"after step {step} of 6" in ended[0][1] and "stopped by" not in ended[1][1]
    again = start_apart(tmp_path, 2, eval_every=6)
    assert [code for code, _ in again] == [0, 0], again
    assert f"goes on from step {step} of 6" in again[0][1]


def test_scores_are_said_as_they_come(tmp_path: Path) -> None:
    done = start(tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith("run, step ")]
    assert [line.split(":")[0] for line in lines] == ["run, step 3", "run, step 6"]
    assert "normals mErr" in lines[0] and lines[0].endswith("(best)")


# ---------------------------------------------------------------------- listening itself


def test_what_listened_before_listens_again() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with SignalListener() as listener:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert listener.heard == signal.SIGINT  # the first
        with pytest.raises(SignalHeard), listener.leaving_at_once():
            pytest.fail("a signal was heard before")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_another_thread_runs_without_listening() -> None:
    heard: list[int] = []

    def run() -> None:
        with SignalListener() as listener:
            heard.append(listener.heard)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert heard == [0]


def test_a_stop_ends_a_script_with_its_code() -> None:
    assert [Stopped(number).code for number in SIGNALS] == [130, 143]
    assert not isinstance(Stopped(signal.SIGINT), Exception)  # nobody's `except Exception` hides it
