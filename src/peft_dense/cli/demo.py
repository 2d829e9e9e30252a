"""``peft-dense demo``: a page on this machine to drop images on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from peft_dense.cli.predict import add_run, load_run_of

__all__ = ["make_parser", "run"]

_ABOUT = """Serve a page on 127.0.0.1: drop an image, see every task, and the time of the one
pass."""
_MORE = """Only this machine reaches the page, and it asks nothing of any other. Images are shown to
the model as validation showed them. Ctrl-C ends it."""


def make_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Make a parser of all options of the page.

    Args:
        parser: Takes the options; by default a new one.

    Raises:
        MissingPackageError: Training isn't installed.
    """
    from peft_dense.training.options import HelpFormatter

    parser = parser or argparse.ArgumentParser()
    parser.description, parser.epilog = _ABOUT, _MORE
    parser.formatter_class = HelpFormatter
    add_run(parser)
    port = "of the page; by default the first free one from 7860 on"
    parser.add_argument("--port", type=int, help=port)
    return parser


def run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Do what the options say; give the exit status, and what is printed."""
    import numpy as np

    from peft_dense.predicting.page import build_page, serve

    run = load_run_of(arguments)
    title = f"{arguments.folder}: {', '.join(run.tasks)}"

    def see(path: Path) -> Any:
        (found,) = run.predict(path)
        return found

    page = build_page(see, tuple(run.tasks), title)
    channels = run.model.encoder.info.in_channels
    list(run.predict(np.zeros((*run.size, channels), np.uint8)))  # else the first pass is slow
    address = serve(page, arguments.port, wait=False)
    sys.stdout.write(f"{arguments.folder} is at {address} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    page.block_thread()
    return 0, ""
