"""``peft-dense explain``: what is found in a backbone, and what a method puts where."""

from __future__ import annotations

import argparse
import sys

from peft_dense.backbones import describe, examine
from peft_dense.cli import arguments as read
from peft_dense.counting import build
from peft_dense.errors import UnknownNameError
from peft_dense.explaining import explain_method
from peft_dense.injection import PASCAL_CONTEXT
from peft_dense.methods import method as make_method

__all__ = ["add_explain"]


def add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    about = "say what is found in a backbone, and what a method would put where"
    explain = commands.add_parser("explain", help=about, description=about.capitalize() + ".")
    explain.set_defaults(run=_explain)
    read.add_backbone(explain)
    explain.add_argument(
        "--method", metavar="NAME", help="the method; without one, only the backbone is described"
    )
    read.add_settings(explain, "a hyper-parameter of the method; may be repeated")
    explain.add_argument(
        "--tasks", type=read.names, default=PASCAL_CONTEXT, help="a,b,... (those of PASCAL-Context)"
    )


def _explain(arguments: argparse.Namespace) -> tuple[int, str]:
    settings = dict(arguments.settings)
    if arguments.method is None and settings:
        raise UnknownNameError(
            f"--set {next(iter(settings))}=... is a hyper-parameter of no method; name one with "
            "--method NAME."
        )
    chosen = None if arguments.method is None else make_method(arguments.method, **settings)
    model = build(arguments.model, arguments.backbone_args)
    info = examine(model)
    if chosen is None:
        return 0, describe(info)
    # First, so that it is there to read where the method can't go.
    sys.stdout.write(f"{describe(info)}\n\n")
    return 0, explain_method(model, chosen.resolve(info), arguments.tasks, info)
