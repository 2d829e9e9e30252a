"""The command line: list, count and explain methods, make and check data, train and predict.

One file a command; `main` gives it the arguments and turns errors into one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from peft_dense._version import __version__
from peft_dense.cli.data import add_data
from peft_dense.cli.demo import add_demo
from peft_dense.cli.evaluate import add_evaluate
from peft_dense.cli.explain import add_explain
from peft_dense.cli.methods import add_methods
from peft_dense.cli.output import exit_status
from peft_dense.cli.params import add_params
from peft_dense.cli.predict import add_predict
from peft_dense.cli.train import add_train

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
    add_train(commands, given, chosen=chosen == "train")
    add_evaluate(commands, chosen=chosen == "evaluate")
    add_predict(commands, chosen=chosen == "predict")
    add_demo(commands, chosen=chosen == "demo")
    return parser
