"""A run's progress: the numbers that a state holds beside weights and optimizer."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from typing_extensions import Self

from peft_dense.data.labels import Item
from peft_dense.training.best import Quality

__all__ = ["Progress", "Speed"]


@dataclass
class Progress:
    """Count what a run has done.

    Args:
        step: Steps taken.
        scored_step: The step that was scored last.
        seconds: Of all steps, waiting for data included.
        waiting: Seconds of those spent waiting for data.
        best: The quality of the model in ``best/``.
        best_primary: Its primary metric of each task.
        skipped: Why images were skipped.
    """

    step: int = 0
    scored_step: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    best: Quality | None = None
    best_primary: dict[str, float] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)

    def waiting_for(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Pass batches on, and count the seconds until each is there."""
        start = time.perf_counter()
        for batch in batches:
            waited = time.perf_counter() - start
            self.waiting += waited
            self.seconds += waited
            yield batch
            start = time.perf_counter()

    def as_state(self) -> dict[str, Any]:
        """Give the progress as plain values."""
        return {**asdict(self), "skipped": sorted(self.skipped)}

    def as_results(self, batch: int) -> dict[str, Any]:
        """Give its part of the results, with ``batch`` images per step."""
        pace = self.step * batch / self.seconds if self.seconds else 0.0
        return {
            "best": {"step": self.best[-1] if self.best else None, "primary": self.best_primary},
            "skipped": sorted(self.skipped),
            "seconds": self.seconds,
            "seconds_waiting": self.waiting,
            "images_per_second": pace,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Take back what :meth:`as_state` gave.

        Example:
            >>> now = Progress(step=3, skipped={"a"})
            >>> Progress.of_state(now.as_state()) == now
            True
        """
        known = {each.name: state[each.name] for each in fields(cls)}
        best = state["best"]
        return cls(
            **known | {"best": best and tuple(best), "skipped": set(state["skipped"])},
        )


class Speed:
    """Measure images per second, and the share of time spent waiting for data.

    Args:
        progress: The run's.
        batch: Images per step.
    """

    def __init__(self, progress: Progress, batch: int) -> None:
        self.progress, self.batch = progress, batch
        self._last = progress.step, progress.seconds, progress.waiting

    def lap(self) -> dict[str, float]:
        """Give ``images_per_second`` and ``waiting`` of the steps since the last lap."""
        now = self.progress.step, self.progress.seconds, self.progress.waiting
        steps, seconds, waiting = (a - b for a, b in zip(now, self._last, strict=True))
        self._last = now
        seconds = max(seconds, 1e-9)
        return {"images_per_second": steps * self.batch / seconds, "waiting": waiting / seconds}
