"""Scored runs in one table, one row per method: mean and deviation over seeds, and gains."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft_dense import papers
from peft_dense.errors import DataError, UnknownNameError
from peft_dense.methods import method as find_method
from peft_dense.tasks import Scores, delta_m, references
from peft_dense.training.run_folder import read_identity, read_results

__all__ = ["compare"]

_SEED_OR_PLACE = ("seed", "data", "workers", "pictures", "save_every", "eval_every", "skip_bad")
_METRICS = {"edge": "odsF"}  # where it isn't the task's own

Run = tuple[Path, Mapping[str, Any]]
"""A run's folder, and its scores by `score_run`."""


def compare(
    runs: Sequence[Run],
    *,
    reference: str | None = None,
    across_protocols: bool = False,
    order: bool = False,
    markdown: bool = False,
) -> str:
    """Lay out one row per label: each metric and the gain over seeds, and what it cost.

    Args:
        runs: Folders and scores.
        reference: A label among the runs, or one of `peft_dense.tasks.references`; by default
            ``single_task_full``, else ``decoders_only``, else the first.
        across_protocols: Whether the reference may be measured at other sizes of labels.
        order: Whether to correlate the order of methods with the papers'.
        markdown: Whether to lay it out for a page.

    Raises:
        DataError: Runs differ by more than their seed, or don't compare with the reference.
        UnknownNameError: There is no such reference.
    """
    _check_comparable(runs)
    by_run = {(found["label"], found["seed"]): _scores(found) for _, found in runs}
    name, of_seed = _choose(reference, by_run)
    first = next(iter(by_run.values()))
    arrows = {n: "↓" if n in first.lower_is_better else "↑" for n in first.values}
    metrics = [f"{n} {m}{arrows[n]}" for n, m in first.metrics.items()]
    rows = [["method", *metrics, "Delta %", "encoder", "all", "s/step", "peak GiB"]]
    total = len({seed for _, seed in by_run})
    means: dict[str, float] = {}
    for label in dict.fromkeys(label for label, _ in by_run):
        seeds = {seed: scores for (own, seed), scores in by_run.items() if own == label}
        cells = [_spread([each.values[n] for each in seeds.values()]) for n in first.values]
        gains = [
            delta_m(each, of_seed(seed), allow_protocols=across_protocols)
            for seed, each in seeds.items()
        ]
        done = [read_results(run) for run, found in runs if found["label"] == label]
        of = "" if len(seeds) == total else f" ({len(seeds)} of {total} seeds)"
        rows.append([label + of, *cells, _spread(gains, "+"), *_costs(done)])
        means[label] = statistics.mean(gains)
    note = f"{first.protocol}; {total} seed(s), mean ± deviation; Delta over {name}, seed by seed"
    other = of_seed(next(iter(by_run))[1]).protocol
    note += f", measured on {other}" * (other != first.protocol)
    if order:
        note += f". {_order(means)}"
    if markdown:
        rows.insert(1, ["---", *["--:"] * (len(rows[0]) - 1)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{note}"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, "", note])


def _costs(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give the cells of parameters, seconds per step and memory."""
    pace = statistics.mean(each["seconds"] / each["steps"] for each in done)
    peak = [each["peak_memory"] for each in done if each["peak_memory"]]
    memory = f"{max(peak) / 2**30:.2f}" if peak else "-"
    return [f"{done[0]['encoder']:,}", f"{done[0]['all']:,}", f"{pace:.2f}", memory]


def _scores(found: Mapping[str, Any]) -> Scores:
    metrics = {
        name: _METRICS[name] if _METRICS.get(name) in values else found["metrics"][name][0]
        for name, values in found["scores"].items()
    }
    return Scores(
        values={name: found["scores"][name][metric] for name, metric in metrics.items()},
        metrics=metrics,
        lower_is_better=tuple(name for name in metrics if not found["metrics"][name][1]),
        protocol=found["protocol"],
        source=f"{found['label']}, seed {found['seed']}",
    )


def _choose(
    name: str | None, by_run: Mapping[tuple[str, int], Scores]
) -> tuple[str, Callable[[int], Scores]]:
    """Give the reference's name, and its scores for runs of a seed."""
    labels = {label for label, _ in by_run}
    if name in references():
        return f"{name} ({references()[name].source})", lambda seed: references()[name]
    if name is None:
        usual = (label for label in ("single_task_full", "decoders_only") if label in labels)
        name = next(usual, next(iter(by_run))[0])
    if name not in labels:
        raise UnknownNameError.of("reference", name, [*labels, *references()])

    def of_seed(seed: int) -> Scores:
        if (name, seed) not in by_run:
            raise DataError(f"no run of {name} with seed {seed}; gains compare equal seeds.")
        return by_run[name, seed]

    return name, of_seed


def _order(gains: Mapping[str, float]) -> str:
    """Give the rank correlation of the methods' gains with the papers' Delta."""
    from scipy.stats import spearmanr

    printed: dict[str, float] = {}
    for row in papers.ROWS:  # of several rows the one with our defaults, else the first
        default = find_method(row.method, **row.options) == find_method(row.method)
        printed[row.method] = row.delta if default else printed.get(row.method, row.delta)
    names = [name for name in gains if name in printed]
    rank = spearmanr([gains[name] for name in names], [printed[name] for name in names])
    how = f"over {len(names)} methods: {rank[0]:.2f} (Spearman)"
    return f"Rank correlation with the papers' Delta {how}"


def _check_comparable(runs: Sequence[Run]) -> None:
    """Refuse to make one row of runs that differ by more than their seed."""
    first: dict[str, tuple[Path, dict[str, Any], set[int]]] = {}
    for run, found in runs:
        identity = read_identity(run)
        what = {**identity["about"], **identity["recipe"]}
        what = {name: value for name, value in what.items() if name not in _SEED_OR_PLACE}
        other, same, seeds = first.setdefault(found["label"], (run, what, set()))
        differ = [f"{name} differs" for name in what if what[name] != same.get(name)]
        differ += ["their seeds are the same"] * (found["seed"] in seeds)
        if found["scores"].keys() != runs[0][1]["scores"].keys():
            other, differ = runs[0][0], ["their tasks differ"]
        if differ:
            raise DataError(f"{other} and {run} don't go together: {differ[0]}. Score them apart.")
        seeds.add(found["seed"])


def _spread(values: Sequence[float], sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.2f}"
    if not all(map(math.isfinite, values)):
        return mean
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean
