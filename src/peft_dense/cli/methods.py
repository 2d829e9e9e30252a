"""``peft-dense methods``: the methods, one line each."""

from __future__ import annotations

import argparse

from peft_dense.cli.output import table
from peft_dense.methods import method as make_method
from peft_dense.methods import methods

__all__ = ["add_methods"]


def add_methods(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Make the command known."""
    listing = commands.add_parser("methods", help="list the methods, one line each")
    listing.set_defaults(run=_methods)


def _methods(_: argparse.Namespace) -> tuple[int, str]:
    rows = [["method", "passes", "paper", "what it does"]]
    for name in methods():
        how = make_method(name)
        idea = (how.__doc__ or "").partition("\n")[0].replace("``", "")
        rows.append([name, "1" if how.one_path else "T", how.paper, idea])
    return 0, table(rows, align="<<<<")
