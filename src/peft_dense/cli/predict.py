"""``peft-dense predict``: a trained run's label maps and pictures of any images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from peft_dense.cli import arguments as read
from peft_dense.cli.output import say

__all__ = ["choose_device", "make_parser", "run"]

_ABOUT = """Predict images with a trained run: label maps at each image's own size, pictures of all
tasks side by side and over the image, a contact sheet."""
_MORE = """OUT/TASK has the label maps: PNG with a palette for classes, PNG for edges and marks (255
times the probability), .npy for depth and normals. OUT/side_by_side and OUT/overlay have a picture
per image, OUT/contact_sheet.png some of all. Images are shown to the model as validation showed
them, at --image-size of training; large ones can be seen through windows instead. Images that can't
be read are left out and named at the end. Exit status: 0; 1 if images were left out; 2 after an
error."""


def make_parser(parser: argparse.ArgumentParser | None = None) -> argparse.ArgumentParser:
    """Make a parser of all options of predicting.

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
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="images, folders, patterns, videos")
    add("--out", type=Path, required=True, help="a new or empty folder for the results")
    add("--overwrite", action="store_true", help="replace what has the same name in OUT")
    add("--tasks", type=read.names, metavar="NAMES", help="a,b,... where it isn't all")
    pair: dict[str, Any] = {"nargs": 2, "type": int, "metavar": ("H", "W")}
    add("--size", **pair, help="show images at this size, where it isn't that of training")
    add("--own-size", action="store_true", help="show each image at about its own size")
    add("--window", **pair, help="see images at their own size through windows of this size")
    add("--overlap", type=float, default=0.25, help="share of a window that the next sees again")
    add("--flip", action="store_true", help="average with the mirrored image's predictions")
    add("--batch", type=int, default=8, help="images, or windows, at a time")
    bf16 = "autocast to bfloat16; by default as the run was scored"
    add("--bf16", action=argparse.BooleanOptionalAction, help=bf16)
    add("--every", type=int, default=1, metavar="N", help="of a video, take every Nth frame")
    white = "white in images of 16 bits; by default as in the data of training"
    add("--white", type=float, help=white)
    add("--no-pictures", action="store_true", help="write label maps only")
    add("--rows", type=int, default=20, help="images on the contact sheet")
    return parser


def add_run(parser: argparse.ArgumentParser) -> None:
    """Let a command take a run: its folder, which of its models, weights and device."""
    add = parser.add_argument
    add("folder", type=Path, metavar="RUN", help="the folder that training a method left")
    add("--which", choices=("best", "last"), default="best", help="which of the run's models")
    add(
        "--weights", type=Path, metavar="FILE", help="the backbone's weights, where they have moved"
    )
    add("--device", help="such as cpu or cuda:1; by default a GPU where there is one")
    add("--cpu", action="store_true", help="the same as --device cpu")


def load_run_of(arguments: argparse.Namespace) -> Any:
    """Load the run that the arguments of `add_run` name."""
    from peft_dense.training import load_run

    device = "cpu" if arguments.cpu else choose_device(arguments.device)
    return load_run(arguments.folder, arguments.which, weights=arguments.weights, device=device)


def choose_device(name: str | None) -> str:
    """Give the device of a name; by default a GPU where there is one.

    Raises:
        UnknownNameError: There is no such device here.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    import torch

    from peft_dense.errors import UnknownNameError

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        known = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise UnknownNameError.of("device", name, known) from error
    return name


def run(arguments: argparse.Namespace) -> tuple[int, str]:
    """Do what the options say; give the exit status, and what is printed."""
    from peft_dense.errors import DataError, HyperparameterError
    from peft_dense.nn.checks import check_whole
    from peft_dense.predicting.sheet import ContactSheet
    from peft_dense.predicting.writing import SHEET, check_out, save_prediction, write_picture

    if arguments.own_size and (arguments.size or arguments.window):
        raise HyperparameterError("--own-size goes with neither --size nor --window; give one.")
    check_whole("rows", arguments.rows)
    out = arguments.out
    check_out(out, arguments.overwrite)
    run = load_run_of(arguments)
    chosen: dict[str, Any] = {
        name: value
        for name in ("tasks", "size", "window", "bf16", "white")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.own_size:
        chosen["size"] = None
    skipped: list[str] = []
    predictions = run.predict(
        arguments.images,
        overlap=arguments.overlap,
        flip=arguments.flip,
        batch=arguments.batch,
        every=arguments.every,
        skipped=skipped,
        progress=sys.stderr.isatty(),
        leave_out=out,
        **chosen,
    )
    sheet, number, seconds = ContactSheet(arguments.rows), 0, 0.0
    try:
        for found in predictions:
            save_prediction(found, out, pictures=not arguments.no_pictures)
            sheet.add(found)
            number, seconds = number + 1, seconds + found.seconds
    except KeyboardInterrupt:
        say(f"stopped by SIGINT; what was written of {number} images is whole, in {out}")
        return 130, ""
    drawn = None if arguments.no_pictures else sheet.draw()
    if drawn is not None:
        write_picture(drawn, out / SHEET)
    for reason in skipped:
        say(f"left out: {reason}")
    if not number:
        raise DataError(f"none of {len(skipped)} images could be predicted; nothing was written.")
    lines = [f"{out}: {number} images, {', '.join(chosen.get('tasks', run.tasks))}"]
    lines[0] += f"; {1000 * seconds / number:.0f} ms per image in the model"
    if drawn is not None:
        lines.append(f"contact sheet: {out / SHEET}")
    if skipped:
        lines.append(f"left out: {len(skipped)}, named above")
    return (1 if skipped else 0), "\n".join(lines)
