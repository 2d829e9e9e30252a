"""Scored runs beside the cells that the papers print, with the difference."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peft_dense import papers
from peft_dense.errors import DataError
from peft_dense.methods import method as find_method
from peft_dense.methods import methods
from peft_dense.tasks import delta_m
from peft_dense.tasks.scores import Scores, published

__all__ = ["beside_papers"]

_REFERENCE = "single_task_full"


def beside_papers(runs: Sequence[tuple[Path, Mapping[str, Any]]], *, markdown: bool = False) -> str:
    """Lay out one row per run that the papers have: ours, theirs and the difference, by metric.

    Ours is the mean over seeds. Delta compares each seed with its own run of single-task full
    fine-tuning, and is given only if that was run; theirs is as printed.

    Args:
        runs: Folders, and their scores by `score_run`. Those that aren't in the papers' tables
            are named below the table and left out.
        markdown: Whether to lay it out for a page.

    Raises:
        DataError: No run is in the papers' tables.
    """
    scored: dict[str, dict[int, dict[str, float]]] = {}
    for _, found in runs:
        scored.setdefault(found["label"], {})[found["seed"]] = _primary(found["scores"])
    rows = {label: _row_of(label) for label in scored}
    others = [label for label, row in rows.items() if row is None]
    if len(others) == len(rows):
        known = ", ".join(row.label for row in papers.ROWS)
        raise DataError(f"{', '.join(others)}: not in the papers' tables, which have {known}.")
    lines = [["method", *(f"{task} {metric}" for task, metric in papers.METRICS.items()), "Delta"]]
    for label, row in rows.items():
        if row is None:
            continue
        printed, seeds = row.scores or {}, scored[label]
        cells = [
            _cell([each[task] for each in seeds.values() if task in each], printed.get(task))
            for task in papers.METRICS
        ]
        lines.append([label, *cells, _cell(_gains(seeds, scored.get(_REFERENCE, {})), row.delta)])
    note = (
        f"ours (theirs, ours - theirs); theirs: {papers.PROTOCOL}. normals: lower is better. "
        "Labels must be scored at the papers' sizes to compare, which aren't printed."
    )
    note += f" Not in the papers' tables: {', '.join(others)}." if others else ""
    if markdown:
        lines.insert(1, ["---", *["--:"] * (len(lines[0]) - 1)])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}"
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*table, "", note])


def _row_of(label: str) -> papers.Row | None:
    """Give the row of that label, or the one whose hyper-parameters are the method's defaults."""
    for row in papers.ROWS:
        if row.label == label:
            return row
    if label not in methods():
        return None
    named = (row for row in papers.ROWS if row.method == label)
    default = find_method(label)
    return next((row for row in named if find_method(label, **row.options) == default), None)


def _primary(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Give the metrics that the papers print, of the tasks that they have."""
    return {
        task: scores[task][metric]
        for task, metric in papers.METRICS.items()
        if metric in scores.get(task, {})
    }


def _gains(
    seeds: Mapping[int, Mapping[str, float]], bases: Mapping[int, Mapping[str, float]]
) -> list[float]:
    """Give the Delta of each seed that has its reference and all of the papers' tasks."""
    return [
        delta_m(_as_scores(mine), _as_scores(bases[seed]))
        for seed, mine in seeds.items()
        if seed in bases and set(mine) == set(bases[seed]) == set(papers.METRICS)
    ]


def _as_scores(values: Mapping[str, float]) -> Scores:
    like = published(papers.ROWS[0])
    return Scores(
        values=dict(values),
        metrics=like.metrics,
        lower_is_better=like.lower_is_better,
        protocol=like.protocol,
        source="ours",
    )


def _cell(ours: Sequence[float], theirs: float | None) -> str:
    mean = statistics.mean(ours) if ours else None
    if mean is None or theirs is None:
        return f"{'-' if mean is None else f'{mean:.2f}'} ({'-' if theirs is None else theirs})"
    return f"{mean:.2f} ({theirs:.2f}, {mean - theirs:+.2f})"
