"""Time several things in turn and compare each with the first, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

__all__ = ["in_turn", "ratios"]

CLOCKS: Mapping[str, Callable[[], float]] = {
    "process": time.process_time,
    "wall": time.perf_counter,
}


def in_turn(
    runs: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Run all in each round, so that what else the machine does falls on all; one round warms up.

    Returns:
        Per name the seconds of each round, by process time and by wall time.
    """
    seconds: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in CLOCKS} for name in runs
    }
    for _ in range(1 + rounds):
        for name, run in runs.items():
            started = {clock: now() for clock, now in CLOCKS.items()}
            run()
            for clock, now in CLOCKS.items():
                seconds[name][clock].append(now() - started[clock])
    return {
        name: {clock: times[1:] for clock, times in clocks.items()}
        for name, clocks in seconds.items()
    }


def ratios(mine: list[float], bound: list[float]) -> dict[str, float]:
    """Give median and range, over rounds, of a round's time by the bound's in the same round."""
    found = [one / other for one, other in zip(mine, bound, strict=True)]
    return {"median": statistics.median(found), "least": min(found), "most": max(found)}
