"""The command line: list, count and explain methods, make and check data, train and predict.

Each command is one file; `main` gives it the arguments and turns errors into one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from peft_dense._version import __version__
from peft_dense.cli import demo, evaluate, predict, train
from peft_dense.cli.data import add_data
from peft_dense.cli.explain import add_explain
from peft_dense.cli.methods import add_methods
from peft_dense.cli.output import exit_status
from peft_dense.cli.params import add_params

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after an error.

    ``data check`` returns 1 where it finds problems, and ``predict`` where it left images out;
    ``train``, stopped by a signal, ends with 130 or 143.

    Example:
        >>> main(["params", "pvt_v2_b0", "--method", "vmt_lihgt"])
        2
    """
    given = list(sys.argv[1:] if argv is None else argv)

    def run() -> int:
        arguments = _parser(given).parse_args(given)
        status, text = arguments.run(arguments)
        if text:
            sys.stdout.write(f"{text}\n")
        return int(status)

    return exit_status(run)


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peft-dense", description="Adapt one frozen vision backbone to many dense tasks."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_methods(commands)
    add_params(commands)
    add_explain(commands)
    add_data(commands)
    chosen = next((word for word in given if not word.startswith("-")), "")
    # Their options need the packages of training, so only the chosen command's are made.
    for name, about, make_parser, run in (
        (
            "train",
            "train methods on your own images, or on scenes rendered on the spot",
            partial(train.make_parser, given),
            train.run,
        ),
        ("evaluate", "score trained runs, and compare them", evaluate.make_parser, evaluate.run),
        ("predict", "label maps and pictures of any images", predict.make_parser, predict.run),
        ("demo", "a page on this machine to drop images on", demo.make_parser, demo.run),
    ):
        command = commands.add_parser(name, help=about)
        if name == chosen:
            make_parser(command).set_defaults(run=run)
    return parser
