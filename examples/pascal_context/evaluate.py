#!/usr/bin/env python
"""Score trained runs by the field's conventions, and compare them over seeds in one table.

    python examples/pascal_context/evaluate.py runs/pascal_context/* --labels native --edges
    python examples/pascal_context/evaluate.py runs/seed*/* --reference single_task_full

Each run is a folder that train.py left: its data, backbone and weights are found as they were.
Runs of one method that differ by their seed make one row, mean and standard deviation. Every metric
of every task is kept in RUN/scores-*.json, and isn't computed twice. Under `accelerate launch` the
processes share the images.

--labels resized scores at the size of training, with labels sampled to it; --labels native scores
at each image's own size, as published numbers on PASCAL-Context mostly are. They don't compare.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from peft_dense import DenseModel, data, papers
from peft_dense.errors import DataError, PeftDenseError, UnknownNameError
from peft_dense.methods import method as find_method
from peft_dense.tasks import BoundaryMeter, Scores, Task, delta_m, references, task, tasks
from peft_dense.training import evaluate, make_backbone, make_data
from peft_dense.training.checkpoints import write_whole
from peft_dense.training.claim import read_claim

SEED_OR_PLACE = ("seed", "data", "workers", "pictures", "save_every", "eval_every", "skip_bad")
METRICS = {"edge": "odsF"}  # where it isn't the task's own


class ResizeImage:
    """Resample the image and leave the labels at their native size."""

    def __init__(self, size: Sequence[int]) -> None:
        self.resize = data.Resize(size)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item | self.resize({"image": item["image"]})


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("runs", nargs="+", type=Path, help="folders that train.py left")
    add("--which", choices=("last", "best"), default="last", help="which of the run's models")
    add("--labels", choices=("resized", "native"), default="resized")
    add("--edges", action="store_true", help="odsF, oisF and AP of edges, which takes its time")
    add("--tolerance", type=float, default=0.0075, help="of edges; 0.011 is the custom on NYUD")
    add("--reference", help="a label among the runs, or of peft_dense.tasks.references()")
    add("--across-protocols", action="store_true", help="compare with other sizes of labels too")
    add("--data", help="where the data is now, if it has moved")
    add("--batch", type=int, default=12)
    add("--workers", type=int, default=0)
    add("--cpu", action="store_true", help="even where there is a GPU")
    add("--order", action="store_true", help="correlate the order of methods with the papers'")
    add("--markdown", action="store_true", help="print the table for a page")
    return parser.parse_args(argv)


def score(run: Path, args: argparse.Namespace, accelerator: Accelerator) -> dict[str, Any]:
    """Give every metric of a run, from its file or from the data."""
    mark = read_claim(run)
    tag = args.labels + f"-edges-{args.tolerance:g}" * args.edges
    kept = run / f"scores-{args.which}-{tag}.json"
    label = finished(run)["label"]
    place = str(args.data or mark["about"]["data"])
    there = [json.loads(kept.read_text("utf-8")) if kept.is_file() else None]
    broadcast_object_list(there)  # the first process's view holds for all
    if there[0] and there[0]["data"] == place:
        return dict(there[0])
    options = argparse.Namespace(**{**mark["about"], **mark["recipe"]})
    options.cache, options.loss_weights = 0, []
    options.weights = Path(options.weights) if options.weights else None
    options.data = place
    skipped: set[str] = set()
    torch.manual_seed(options.seed)  # of a backbone at random weights
    net = make_backbone(options)
    known, _, val = make_data(options)
    native = args.labels == "native"
    if native:
        val.transform = ResizeImage(options.image_size)
    model = DenseModel.load(run / args.which, net).to(accelerator.device)
    meters = {name: each.meter() for name, each in known.items()}
    if args.edges and "edge" in known:
        meters["edge"] = BoundaryMeter(known["edge"], args.tolerance)
    found = {
        "label": label,
        "seed": options.seed,
        "data": place,
        "protocol": f"{Path(options.data).name} val, "
        + ("native size" if native else f"{options.image_size}, resized labels"),
        "scores": evaluate(
            model,
            known,
            val,
            batch=1 if native else args.batch,
            workers=args.workers,
            bf16=options.bf16,
            skip_bad=options.skip_bad,
            skipped=skipped,
            accelerator=accelerator,
            meters=meters,
            progress=True,
        ),
    }
    found["skipped"] = sorted(set(gather_object(sorted(skipped))))
    for reason in found["skipped"]:
        accelerator.print(f"skipped: {reason}")
    if accelerator.is_main_process:
        write_whole(kept, json.dumps(found, indent=1).encode())
    return found


def finished(run: Path) -> dict[str, Any]:
    path = run / "results.json"
    if not path.is_file():
        raise DataError(f"no results.json in {run}; it isn't finished: start its train.py again.")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def as_scores(found: Mapping[str, Any], known: Mapping[str, Task]) -> Scores:
    metrics = {
        name: METRICS[name] if METRICS.get(name) in values else known[name].metric
        for name, values in found["scores"].items()
    }
    return Scores(
        values={name: found["scores"][name][metric] for name, metric in metrics.items()},
        metrics=metrics,
        lower_is_better=tuple(name for name in metrics if not known[name].higher_is_better),
        protocol=found["protocol"],
        source=f"{found['label']}, seed {found['seed']}",
    )


def choose(
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


def table(runs: Sequence[tuple[Path, Mapping[str, Any]]], args: argparse.Namespace) -> str:
    """A row a label: mean and deviation over seeds of each metric and of the gain, and costs."""
    known = {name: task(name) for _, found in runs for name in found["scores"] if name in tasks()}
    check_comparable(runs)
    by_run = {(found["label"], found["seed"]): as_scores(found, known) for _, found in runs}
    name, reference = choose(args.reference, by_run)
    first = next(iter(by_run.values()))
    arrows = {n: "↓" if n in first.lower_is_better else "↑" for n in first.values}
    metrics = [f"{n} {m}{arrows[n]}" for n, m in first.metrics.items()]
    rows = [["method", *metrics, "Delta %", "encoder", "all", "s/step", "peak GiB"]]
    total = len({seed for _, seed in by_run})
    means: dict[str, float] = {}
    for label in dict.fromkeys(label for label, _ in by_run):
        seeds = {seed: scores for (own, seed), scores in by_run.items() if own == label}
        cells = [spread([each.values[n] for each in seeds.values()]) for n in first.values]
        gains = [
            delta_m(each, reference(seed), allow_protocols=args.across_protocols)
            for seed, each in seeds.items()
        ]
        done = [finished(run) for run, found in runs if found["label"] == label]
        pace = statistics.mean(each["seconds"] / each["steps"] for each in done)
        peak = [each["peak_memory"] for each in done if each["peak_memory"]]
        costs = [f"{done[0]['encoder']:,}", f"{done[0]['all']:,}", f"{pace:.2f}"]
        costs.append(f"{max(peak) / 2**30:.2f}" if peak else "-")
        of = "" if len(seeds) == total else f" ({len(seeds)} of {total} seeds)"
        rows.append([label + of, *cells, spread(gains, "+"), *costs])
        means[label] = statistics.mean(gains)
    note = f"{first.protocol}; {total} seed(s), mean ± deviation; Delta over {name}, seed by seed"
    other = reference(next(iter(by_run))[1]).protocol
    note += f", measured on {other}" * (other != first.protocol)
    if args.order:
        note += f". {order(means)}"
    if args.markdown:
        rows.insert(1, ["---", *["--:"] * (len(rows[0]) - 1)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{note}"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, "", note])


def order(gains: Mapping[str, float]) -> str:
    """Say how the order of methods by gain goes with that of the papers' Delta."""
    from scipy.stats import spearmanr

    printed: dict[str, float] = {}
    for row in papers.ROWS:  # of several rows the one with our defaults, else the first
        default = find_method(row.method, **row.options) == find_method(row.method)
        printed[row.method] = row.delta if default else printed.get(row.method, row.delta)
    names = [name for name in gains if name in printed]
    rank = spearmanr([gains[name] for name in names], [printed[name] for name in names])
    how = f"over {len(names)} methods: {rank[0]:.2f} (Spearman)"
    return f"Rank correlation with the papers' Delta {how}"


def check_comparable(runs: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """Refuse to make one row of runs that differ by more than their seed."""
    first: dict[str, tuple[Path, dict[str, Any], set[int]]] = {}
    for run, found in runs:
        mark = read_claim(run)
        what = {**mark["about"], **mark["recipe"]}
        what = {name: value for name, value in what.items() if name not in SEED_OR_PLACE}
        other, same, seeds = first.setdefault(found["label"], (run, what, set()))
        differ = [f"{name} differs" for name in what if what[name] != same.get(name)]
        differ += ["their seeds are the same"] * (found["seed"] in seeds)
        if found["scores"].keys() != runs[0][1]["scores"].keys():
            other, differ = runs[0][0], ["their tasks differ"]
        if differ:
            raise DataError(f"{other} and {run} don't go together: {differ[0]}. Score them apart.")
        seeds.add(found["seed"])


def spread(values: Sequence[float], sign: str = "") -> str:
    mean = f"{statistics.mean(values):{sign}.2f}"
    if not all(map(math.isfinite, values)):
        return mean
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    args = parse(argv)
    accelerator = Accelerator(cpu=args.cpu)
    for run in args.runs:
        finished(run)  # a wrong name fails now, not after an hour
    runs = [(run, score(run, args, accelerator)) for run in args.runs]
    accelerator.print(table(runs, args))
    return [found for _, found in runs]


if __name__ == "__main__":
    try:
        main()
    except PeftDenseError as error:
        sys.exit(f"error: {error}")
