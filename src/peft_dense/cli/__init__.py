"""The command line: list, count and explain methods, make and check data.

One file a command; `main` gives it the arguments and turns errors into one line.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from peft_dense._version import __version__
from peft_dense.cli.data import add_data
from peft_dense.cli.explain import add_explain
from peft_dense.cli.methods import add_methods
from peft_dense.cli.output import say
from peft_dense.cli.params import add_params
from peft_dense.errors import PeftDenseError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after an error.

    ``data check`` returns 1 where it finds problems.

    Example:
        >>> main(["params", "pvt_v2_b0", "--method", "vmt_lihgt"])
        2
    """
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: say(f"note: {message}")
        try:
            status, text = arguments.run(arguments)
        except PeftDenseError as error:
            say(f"error: {error}")
            return 2
    sys.stdout.write(f"{text}\n")
    return int(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peft-dense", description="Adapt one frozen vision backbone to many dense tasks."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_methods(commands)
    add_params(commands)
    add_explain(commands)
    add_data(commands)
    return parser
