"""Runs side by side, as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator

from peft_dense.dense import DenseModel
from peft_dense.tasks import Task, delta_m
from peft_dense.training.memory import peak_memory

__all__ = ["costs", "gain", "table"]


def gain(
    now: Mapping[str, float], then: Mapping[str, float], tasks: Mapping[str, Task]
) -> float | None:
    """Give the mean relative gain of those tasks that have one; None where none has.

    A task without labels has no metric, and there is no relative gain over zero.
    """
    scored = [
        name
        for name in tasks
        if math.isfinite(now[name]) and math.isfinite(then[name]) and then[name]
    ]
    if not scored:
        return None
    errors = [name for name in scored if not tasks[name].higher_is_better]
    return delta_m({n: now[n] for n in scored}, {n: then[n] for n in scored}, errors)


def costs(model: DenseModel, seconds: float, accelerator: Accelerator) -> dict[str, Any]:
    """Give what a run took, and what it trained."""
    ledger = model.ledger()
    return {
        "seconds": seconds,
        "peak_memory": peak_memory(accelerator.device),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "encoder": ledger.encoder,
        "all": ledger.total,
        "ledger": asdict(ledger),
    }


def table(
    results: Sequence[Mapping[str, Any]],
    tasks: Mapping[str, Task],
    reference: Mapping[str, float] | None = None,
    reference_name: str = "",
) -> str:
    """Lay out each run's primary metrics, its mean relative gain, parameters, seconds and memory.

    Args:
        results: What `Trainer.fit` gave.
        tasks: The tasks, by name.
        reference: Metrics that gains are over; by default those of ``decoders_only``, else of the
            first run.
        reference_name: What to call them.
    """
    if reference is None:
        base = next((r for r in results if r["label"] == "decoders_only"), results[0])
        reference, reference_name = base["primary"], base["label"]
    errors = [name for name, task in tasks.items() if not task.higher_is_better]
    heads = [f"{k} {task.metric}{'↓↑'[task.higher_is_better]}" for k, task in tasks.items()]
    left = max(len(result["label"]) for result in results)
    shown = ["Delta %", "encoder", "all params", "seconds", "peak GiB"]
    rows = [["method".ljust(left), *heads, *shown]]
    for result in results:
        scores = [f"{result['primary'][name]:.2f}" for name in tasks]
        delta = delta_m(result["primary"], reference, errors)
        counts = [f"{result[key]:,.0f}" for key in ("encoder", "all", "seconds")]
        memory = result["peak_memory"]
        peak = "-" if memory is None else f"{memory / 2**30:.2f}"
        rows.append([result["label"].ljust(left), *scores, f"{delta:+.2f}", *counts, peak])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    rule = "-" * len(lines[0])
    note = f"Delta: mean relative gain over {reference_name}; seconds: of training steps"
    return "\n".join([lines[0], rule, *lines[1:], rule, note])
