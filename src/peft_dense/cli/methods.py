"""``peft-dense methods``: the methods, one line each."""

from __future__ import annotations

import argparse
import json

from peft_dense.cli.output import table
from peft_dense.methods import method as make_method
from peft_dense.methods import methods

__all__ = ["add_methods"]


def add_methods(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    listing = commands.add_parser("methods", help="list the methods, one line each")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> tuple[int, str]:
    found = [
        {
            "method": name,
            "passes": "1" if method.one_path else "T",
            "paper": method.paper,
            "what it does": (method.__doc__ or "").partition("\n")[0].replace("``", ""),
        }
        for name in methods()
        for method in [make_method(name)]
    ]
    if arguments.json:
        return 0, json.dumps(found, indent=1)
    rows = [list(found[0]), *(list(each.values()) for each in found)]
    return 0, table(rows, align="<<<<")
