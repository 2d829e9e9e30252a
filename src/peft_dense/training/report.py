"""Texts about runs: beside the progress bar, in errors, and a table of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator

from peft_dense.dense import DenseModel
from peft_dense.tasks import Task, delta_m
from peft_dense.training.memory import peak_memory
from peft_dense.training.recipe import Recipe

__all__ = ["costs", "in_the_bar", "not_finite", "score_line", "table"]


def costs(model: DenseModel, accelerator: Accelerator) -> dict[str, Any]:
    """Give a run's memory, processes, device and trained parameters."""
    ledger = model.ledger()
    return {
        "peak_memory": peak_memory(accelerator.device),
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "encoder": ledger.encoder,
        "all": ledger.total,
        "ledger": asdict(ledger),
    }


def in_the_bar(metrics: Mapping[str, float]) -> str:
    """Give loss and speed of the last steps, for a progress bar.

    Example:
        >>> in_the_bar({"loss": 0.51234, "images_per_second": 18.2, "waiting": 0.25})
        'loss=0.512, 18.2 images/s, 25% waiting'
    """
    loss, pace, waiting = (metrics[key] for key in ("loss", "images_per_second", "waiting"))
    return f"loss={loss:.3f}, {pace:.3g} images/s, {waiting:.0%} waiting"


def score_line(primary: Mapping[str, float], tasks: Mapping[str, Task]) -> str:
    """Name each task's primary metric and its value.

    Example:
        >>> from peft_dense.tasks import task
        >>> score_line({"sal": 61.234}, {"sal": task("sal")})
        'sal mIoU 61.23'
    """
    return ", ".join(f"{k} {tasks[k].metric} {value:.2f}" for k, value in primary.items())


def not_finite(losses: Mapping[str, float], step: int, recipe: Recipe) -> str:
    """Give the message for a loss that isn't finite: its task, the step, and what helps."""
    wrong = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
    every = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
    return (
        f"the loss of {wrong or 'all tasks together'} isn't finite at step {step + 1} ({every}). "
        f"Lower lr (now {recipe.lr:g}), limit the gradient by clip, or train without bf16."
    )


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
        reference_name: Their name in the table's note.

    Example:
        >>> from peft_dense.tasks import task
        >>> counts = {"encoder": 10, "all": 20, "seconds": 1.0, "peak_memory": None}
        >>> run = {"label": "lora", "primary": {"depth": 0.5}, **counts}
        >>> "lora" in table([run], {"depth": task("depth")})
        True
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
    note = f"Delta: mean relative gain over {reference_name}; seconds: of steps and their data"
    return "\n".join([lines[0], rule, *lines[1:], rule, note])
