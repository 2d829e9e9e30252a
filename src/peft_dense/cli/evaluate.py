"""``peft-dense evaluate``: score trained runs by the field's conventions, side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from peft_dense.errors import HyperparameterError

__all__ = ["evaluate", "make_parser", "run"]

_ABOUT = """Score trained runs by the field's conventions, and compare them over seeds in one
table."""
_MORE = """Each run is a folder that training left: its data, backbone and weights are found as
they were. Runs of one method that differ by their seed make one row, mean and standard deviation.
Every metric of every task is kept in RUN/scores-*.json, and isn't computed twice. --labels resized
scores at the size of training, with labels sampled to it; native at each image's own size, as
published numbers on PASCAL-Context mostly are. The two don't compare."""


def make_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Make a parser of all options of scoring.

    Args:
        parser: Takes the options; by default a new one.

    Raises:
        MissingPackageError: Training isn't installed.
    """
    from peft_dense.training.options import HelpFormatter

    parser = parser or argparse.ArgumentParser()
    parser.description, parser.epilog = _ABOUT, _MORE
    parser.formatter_class = HelpFormatter
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folders that training left")
    add("--which", choices=("last", "best"), default="last", help="which of the run's models")
    labels = "size of labels"
    add("--labels", choices=("resized", "native"), default="resized", help=labels)
    add("--edges", action="store_true", help="odsF, oisF and AP of edges; slow")
    add("--tolerance", type=float, default=0.0075, help="of edges; 0.011 is the custom on NYUD")
    add("--reference", help="a label among the runs, or of peft_dense.tasks.references()")
    add("--across-protocols", action="store_true", help="compare with other sizes of labels too")
    add("--data", help="where the data is now, if it has moved")
    add("--batch", type=int, default=12, help="images at a time")
    add("--workers", type=int, default=0, help="processes that load data")
    add("--cpu", action="store_true", help="even where there is a GPU")
    add("--order", action="store_true", help="correlate the order of methods with the papers'")
    add("--papers", action="store_true", help="set our cells beside the papers', with differences")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    how.add_argument("--json", action="store_true", help="print every metric as JSON")
    return parser


def evaluate(arguments: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Do what the options say; give every run's scores, and what is printed of them."""
    from peft_dense.training.comparison import compare
    from peft_dense.training.launcher import make_accelerator
    from peft_dense.training.paper_cells import beside_papers
    from peft_dense.training.rescoring import Convention, score_run
    from peft_dense.training.run_folder import read_results

    if arguments.papers and arguments.json:
        raise HyperparameterError(
            "--papers is a table, and --json prints every metric in its place; pass one of them."
        )
    for run in arguments.runs:
        read_results(run)  # a wrong name fails now, not after an hour
    accelerator = make_accelerator(arguments.cpu)
    convention = Convention(
        which=arguments.which,
        labels=arguments.labels,
        edges=arguments.edges,
        tolerance=arguments.tolerance,
    )
    runs = [
        (
            run,
            score_run(
                run,
                convention,
                accelerator,
                place=arguments.data,
                batch=arguments.batch,
                workers=arguments.workers,
            ),
        )
        for run in arguments.runs
    ]
    found = [scores for _, scores in runs]
    if not accelerator.is_main_process:
        return found, ""
    if arguments.json:
        return found, json.dumps(found, indent=1)
    table = compare(
        runs,
        reference=arguments.reference,
        across_protocols=arguments.across_protocols,
        order=arguments.order,
        markdown=arguments.markdown,
    )
    if arguments.papers:
        table += "\n\n" + beside_papers(runs, markdown=arguments.markdown)
    return found, table


def run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Do what the options say; give the exit status, and what is printed."""
    return 0, evaluate(arguments)[1]
