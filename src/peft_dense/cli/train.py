"""``peft-dense train``: train methods on your own images, or on scenes made on the spot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft_dense.cli.output import say

if TYPE_CHECKING:
    from peft_dense.training.recipe import Recipe
    from peft_dense.training.setup import Setup
    from peft_dense.training.trainer import Result

__all__ = ["SHORT", "make_parser", "options_of", "run", "train"]

SHORT: dict[str, Any] = {
    "epochs": None,
    "batch": 8,
    "lr": 2e-3,
    "warmup": 0.05,
    "optimizer": "adamw",
    "out": Path("runs/train"),
}
"""A short budget, for a demo or a few hundred photographs."""

_STEPS = 250
_ABOUT = """Train any method on your own images, or on scenes made here, and compare methods in one
table."""
_MORE = """`peft-dense methods` says what the methods do. Each leaves in OUT/METHOD: log.csv,
TensorBoard events, grid.png, results.json, last/ and best/ (adapters and heads only). Stopped or
killed at any moment, the same command goes on where it was. Exit status: 0; 2 after an error; 130
or 143 after Ctrl-C or SIGTERM, with the state kept."""


def make_parser(
    argv: Sequence[str] = (), parser: argparse.ArgumentParser | None = None, **defaults: Any
) -> argparse.ArgumentParser:
    """Make a parser of all options of training.

    Args:
        argv: What it is going to parse; a ``--config`` there gives defaults.
        parser: Takes the options; by default a new one.
        defaults: By option; by default those of `SHORT`.

    Raises:
        CheckpointError: A ``--config`` isn't a run's.
        MissingPackageError: Training isn't installed.
    """
    from peft_dense.training.options import HelpFormatter, add_options, use_config

    parser = parser or argparse.ArgumentParser()
    parser.formatter_class, parser.usage = HelpFormatter, "%(prog)s [options]"
    parser.description = parser.description or _ABOUT
    parser.epilog = _MORE
    add_options(parser, **(defaults or SHORT))
    use_config(parser, argv)
    return parser


def options_of(arguments: argparse.Namespace) -> tuple[Setup, Recipe]:
    """Make setup and recipe from arguments; without epochs and steps the budget is short."""
    from peft_dense.training import read_options

    if arguments.steps is None and arguments.epochs is None:
        arguments.steps = _STEPS
    return read_options(arguments)


def train(arguments: argparse.Namespace) -> list[Result]:
    """Do what the options say."""
    from peft_dense.training import run_all

    setup, recipe = options_of(arguments)
    if not (setup.own_data or setup.weights) and setup.pretrained is None:
        say(
            "note: training on scenes that are rendered here, with a backbone that stays at "
            "random weights. The repository has a pretrained one for them: --weights "
            "examples/demo_backbone.safetensors, which examples/train.py takes by itself; "
            "--no-pretrained if random weights are what you want."
        )
    return run_all(setup, recipe)


def run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Do what the options say; give the exit status, and what is printed."""
    train(arguments)
    return 0, ""
