"""Runs of small_run.py in processes of their own, and what they leave."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

SCRIPT = Path(__file__).with_name("small_run.py")


def start(out: Path, *, processes: int = 1, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run to the end of the process; several are started as torchrun does."""
    command = [str(SCRIPT), str(out), json.dumps(options)]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launch, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )


def start_apart(out: Path, processes: int, **options: Any) -> list[tuple[int, str]]:
    """Run processes without a launcher that ends the others; give each one's code and words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out), json.dumps(options)],
            env={
                **os.environ,
                **shared,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
                "LOCAL_WORLD_SIZE": str(processes),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    return [(p.returncode, words) for p, words in zip(running, said, strict=True)]


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
