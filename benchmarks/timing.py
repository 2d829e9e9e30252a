"""Time several things in turn and compare each with another, round by round.

Everything runs once per round, so that what else the machine does falls on all of them, and a ratio
is taken within a round. On a GPU a third clock counts between two events of the device.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["CLOCKS", "Spread", "clocks_of", "flops", "in_turn", "processes", "ratios", "spread"]

Spread = dict[str, float]  # median, least, most
Times = dict[str, dict[str, list[float]]]  # by name and clock the seconds of each round

CLOCKS: Mapping[str, Callable[[], float]] = {
    "process": time.process_time,
    "wall": time.perf_counter,
}
EVENTS = "device"


def clocks_of(device: torch.device | None = None) -> tuple[str, ...]:
    """Name the clocks that `in_turn` reads, the one that counts first."""
    on_gpu = device is not None and device.type == "cuda"
    return (EVENTS, "wall", "process") if on_gpu else tuple(CLOCKS)


def in_turn(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warm: int = 1,
    device: torch.device | None = None,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Times:
    """Run all in each round; the first ``warm`` rounds aren't counted.

    ``progress`` may show the rounds as they go by, as tqdm does.

    Returns:
        Per name the seconds of each round by each clock: process time and wall time, and of a GPU
        the time between two events.
    """
    seconds: Times = {name: {clock: [] for clock in clocks_of(device)} for name in runs}
    for number in progress(range(warm + rounds)):
        for name, run in runs.items():
            taken = _once(run, device)
            if number >= warm:
                for clock, value in taken.items():
                    seconds[name][clock].append(value)
    return seconds


def _once(run: Callable[[], object], device: torch.device | None) -> dict[str, float]:
    """Time one run by every clock; a GPU has finished before and after it."""
    events = ()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        events = tuple(torch.cuda.Event(enable_timing=True) for _ in range(2))
    started = {clock: now() for clock, now in CLOCKS.items()}
    if events:
        events[0].record()
    run()
    if events:
        events[1].record()
        torch.cuda.synchronize(device)
    taken = {clock: now() - started[clock] for clock, now in CLOCKS.items()}
    if events:
        taken[EVENTS] = events[0].elapsed_time(events[1]) / 1000
    return taken


def flops(run: Callable[[], object]) -> int:
    """Count the operations of its products and convolutions: what no faster code is without."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def spread(values: Sequence[float]) -> Spread:
    """Give median and range."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(mine: Sequence[float], bound: Sequence[float]) -> Spread:
    """Give median and range, over rounds, of a round's value by the bound's in the same round."""
    return spread([one / other for one, other in zip(mine, bound, strict=True)])


def processes(
    commands: Mapping[str, Sequence[str]],
    rounds: int,
    *,
    warm: int = 0,
    environments: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[tuple[str, subprocess.CompletedProcess[str]]]:
    """Run each command in a process of its own, all of them once per round.

    Args:
        commands: By name, the words.
        rounds: How often each runs and is given.
        warm: Rounds before that aren't given (they fill the system's caches).
        environments: By name, what to add to the environment.
    """
    for number in range(warm + rounds):
        for name, words in commands.items():
            more = (environments or {}).get(name, {})
            done = subprocess.run(
                list(words), env={**os.environ, **more}, capture_output=True, text=True
            )
            if number >= warm:
                yield name, done
