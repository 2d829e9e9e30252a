"""``peft-dense data``: make an archive of rendered scenes, and check a data set on disk."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft_dense.cli import arguments as read
from peft_dense.cli.output import one_line, table
from peft_dense.data.checking.check import Problem, Report, check_data
from peft_dense.data.checking.picture import draw_samples
from peft_dense.data.checking.tally import Tally
from peft_dense.data.described.ready import FILE, ready_descriptions
from peft_dense.data.describing.draft import describe, write_draft
from peft_dense.data.made.archive import LAYOUTS, make_archive
from peft_dense.data.made.looks import LOOKS
from peft_dense.data.sources.declared import parse_tasks
from peft_dense.errors import DataError

__all__ = ["add_data"]

_LONG = 20
"""How many problems of a kind are printed; ``--json`` has them all."""

_TITLES = {
    "list": "lists",
    "missing": "missing files",
    "unreadable": "files that can't be read",
    "size": "labels of another size than their image",
    "values": "labels that hold what they can't",
    "labels": "labels that look wrong as a whole",
}


def add_data(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands."""
    about = "make a small data set, describe your own, or check one"
    data = commands.add_parser("data", help=about, description=about.capitalize() + ".")
    kinds = data.add_subparsers(required=True, metavar="COMMAND")

    about = "write rendered scenes as an archive, with exact labels"
    make = kinds.add_parser("make", help=about, description=about.capitalize() + ".")
    make.set_defaults(run=_make)
    make.add_argument("root", metavar="ROOT", help="a new or empty folder")
    make.add_argument("--train", type=int, default=16, metavar="N", help="training images (16)")
    make.add_argument("--val", type=int, default=8, metavar="N", help="validation images (8)")
    make.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(192, 256),
        metavar=("H", "W"),
        help="largest height and width (192 256)",
    )
    make.add_argument("--seed", type=int, default=0, metavar="S", help="of the scenes (0)")
    make.add_argument(
        "--layout", default="pascal", metavar="NAME", help=f"{', '.join(LAYOUTS)} (pascal)"
    )
    make.add_argument("--look", default="mixed", metavar="NAME", help=f"{', '.join(LOOKS)} (mixed)")

    about = "read every file of a data set; name what is wrong, count what is there"
    check = kinds.add_parser(
        "check",
        help=about,
        description=about.capitalize() + ".",
        epilog="Exit status: 0 if it is sound, 1 if there are problems, 2 if it can't be checked.",
    )
    check.set_defaults(run=_check)
    check.add_argument(
        "root",
        metavar="DATA",
        help=f"a folder: PASCAL_MT, NYUD_MT, a DenseFolder, or one with a {FILE}; such a file; or "
        f"NAME:ROOT, of which NAME is {', '.join(ready_descriptions())}",
    )
    check.add_argument("--split", type=read.names, metavar="NAMES", help="lists, a,b,... (all)")
    check.add_argument(
        "--tasks",
        metavar="NAMES",
        help="a,b,... (all); with the kind of labels of your own, as roofs=binary",
    )
    check.add_argument("--picture", metavar="FILE", help="draw samples and labels to a PNG")
    check.add_argument(
        "--samples", type=int, default=6, metavar="N", help="images in the picture (6)"
    )
    check.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read (0: this one)"
    )
    check.add_argument("--json", action="store_true", help="print JSON, with all problems")

    about = "look at a folder, and write a first draft of its description"
    draft = kinds.add_parser(
        "describe",
        help=about,
        description=about.capitalize() + ".",
        epilog="Correct the draft; then `peft-dense data check ROOT` reads everything by it. An "
        f"existing {FILE} is replaced only with --overwrite.",
    )
    draft.set_defaults(run=_describe)
    draft.add_argument("root", metavar="ROOT", help="the data set's folder")
    draft.add_argument("--out", metavar="FILE", help=f"where to write (ROOT/{FILE})")
    draft.add_argument("--dry", action="store_true", help="print the draft, and write nothing")
    draft.add_argument("--overwrite", action="store_true", help="replace a file that is there")


def _describe(arguments: argparse.Namespace) -> tuple[int, str]:
    draft = describe(arguments.root)
    guessed = [*draft.guessed, "", *(f"check: {one_line(doubt)}" for doubt in draft.doubts)]
    if arguments.dry:
        return 0, "\n".join([draft.text, *guessed]).rstrip()
    path = write_draft(arguments.root, draft, out=arguments.out, overwrite=arguments.overwrite)
    place = arguments.root if arguments.out is None else path
    steps = ["", f"draft: {path}", f"then: peft-dense data check {place} --picture samples.png"]
    return 0, "\n".join([*guessed, *steps] if draft.doubts else [*draft.guessed, *steps])


def _make(arguments: argparse.Namespace) -> tuple[int, str]:
    made = make_archive(
        arguments.root,
        train=arguments.train,
        val=arguments.val,
        size=arguments.size,
        seed=arguments.seed,
        layout=arguments.layout,
        look=arguments.look,
    )
    return 0, f"{made}: {arguments.train} training and {arguments.val} validation images"


def _check(arguments: argparse.Namespace) -> tuple[int, str]:
    if min(arguments.samples, arguments.workers) < 0 or arguments.samples < bool(arguments.picture):
        raise DataError(
            f"samples={arguments.samples}, workers={arguments.workers}: expected at least one "
            "image for a picture, and no negative number."
        )
    names, kinds = parse_tasks(arguments.tasks) if arguments.tasks else (None, None)
    report = check_data(
        arguments.root,
        splits=arguments.split,
        tasks=names,
        kinds=kinds,
        samples=arguments.samples if arguments.picture else 0,
        workers=arguments.workers,
        progress=_progress if sys.stderr.isatty() else None,
    )
    drawn = arguments.picture and _draw(report, arguments.picture)
    status = 1 if report.problems else 0
    if arguments.json:
        return status, json.dumps({**report.as_dict(), "picture": drawn}, indent=1)
    lines = [f"{report.root}: {report.title}", "", _counts(report), ""]
    for task, tallies in _by_task(report).items():
        lines += [_values(task, tallies), ""]
    lines += [_problems(report)]
    lines += [f"note: {one_line(note)}" for note in report.notes]
    if drawn:
        lines += ["", f"picture: {drawn}"]
    return status, "\n".join(lines)


def _progress(split: str, done: int, total: int) -> None:
    sys.stderr.write(f"\r{split} {done:,} of {total:,}" + "\n" * (done == total))
    sys.stderr.flush()


def _draw(report: Report, file: str) -> str:
    if not report.samples:
        raise DataError(f"no image of {report.root} can be read; there is nothing to draw.")
    tallies = {task: next(iter(found.values())) for task, found in _by_task(report).items()}
    try:
        draw_samples(report.samples, tallies, file)
    except OSError as error:
        raise DataError(f"can't write {file}: {error}.") from error
    return str(Path(file))


# ---------------------------------------------------------------------- what is printed


def _counts(report: Report) -> str:
    """Number of images, and by task of labels, and how much of these is ignored."""
    splits = list(report.images)
    rows = [["", *splits], ["images", *(f"{report.images[split]:,}" for split in splits)]]
    for task, tallies in _by_task(report).items():
        rows.append([task, *(_labelled(tallies.get(split)) for split in splits)])
    return table(rows, align="<" * (1 + len(splits)))


def _by_task(report: Report) -> dict[str, dict[str, Tally]]:
    turned: dict[str, dict[str, Tally]] = {}
    for split, tallies in report.tallies.items():
        for task, tally in tallies.items():
            turned.setdefault(task, {})[split] = tally
    return turned


def _labelled(tally: Tally | None) -> str:
    if tally is None:
        return "-"
    found = tally.as_dict()
    notes = {
        f"{found['without_label']:,} without a file": found["without_label"],
        f"{found['wholly_ignored']:,} all ignored": found["wholly_ignored"],
        f"{found['ignored'] or 0:.1%} of pixels ignored": found["ignored"],
    }
    holding = [note for note, holds in notes.items() if holds]
    return f"{found['labelled']:,}" + (f" ({', '.join(holding)})" if holding else "")


def _values(task: str, tallies: Mapping[str, Tally]) -> str:
    """What the labels of a task hold, list by list."""
    found = {split: tally.as_dict() for split, tally in tallies.items()}
    if "classes" not in next(iter(found.values())):
        return f"{task}: " + "; ".join(f"{_extent(one)} in {split}" for split, one in found.items())
    names: dict[str, None] = {}
    for one in found.values():
        names |= dict.fromkeys(one["classes"])
    rows = [[task, *(head for split in found for head in (split, "images"))]]
    for name in names:
        cells = (one["classes"].get(name, {"share": 0.0, "images": 0}) for one in found.values())
        pairs = ((f"{cell['share']:.2%}", f"{cell['images']:,}") for cell in cells)
        rows.append([f"  {name}", *(text for pair in pairs for text in pair)])
    return table(rows, align="<" + ">" * (len(rows[0]) - 1))


def _extent(found: Mapping[str, Any]) -> str:
    if "range" in found:
        low, high = found["range"] or (float("nan"), float("nan"))
        return f"{low:.3g} to {high:.3g}"
    share = found["towards_viewer"]
    return f"{float('nan') if share is None else share:.1%} of pixels face the viewer"


def _problems(report: Report) -> str:
    """All problems by kind, long lists cut."""
    if not report.problems:
        return "No problems."
    lines = []
    for kind, title in _TITLES.items():
        found = [problem for problem in report.problems if problem.kind == kind]
        if found:
            lines.append(f"{title}: {len(found):,}")
            lines += [f"  {_problem(problem)}" for problem in found[:_LONG]]
            if len(found) > _LONG:
                lines.append(f"  and {len(found) - _LONG:,} more")
    return "\n".join(lines)


def _problem(problem: Problem) -> str:
    where = " ".join(word for word in (problem.split, problem.id, problem.about) if word)
    return f"{where}: {one_line(problem.reason)}"
