"""The command line: count what methods train on a backbone, and list the methods."""

from __future__ import annotations

import argparse
import ast
import json
import sys
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from peft_dense import papers
from peft_dense._version import __version__
from peft_dense.counting import Counter, build
from peft_dense.errors import PeftDenseError, UnknownNameError
from peft_dense.inject import PASCAL_CONTEXT
from peft_dense.methods import method as make_method
from peft_dense.methods import methods
from peft_dense.tasks import task as find_task

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, or 2 after an error.

    Example:
        >>> main(["params", "pvt_v2_b0", "--method", "vmt_lihgt"])
        2
    """
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_: _say(f"note: {message}")
        try:
            text = arguments.run(arguments)
        except PeftDenseError as error:
            _say(f"error: {error}")
            return 2
    sys.stdout.write(f"{text}\n")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{_one_line(text)}\n")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


# ---------------------------------------------------------------------- what is asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peft-dense", description="Adapt one frozen vision backbone to many dense tasks."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("methods", help="list the methods, one line each")
    listing.set_defaults(run=_methods)

    about = "count the trainable parameters of methods on a backbone"
    params = commands.add_parser("params", help=about, description=about.capitalize() + ".")
    params.set_defaults(run=_params)
    model = params.add_argument_group("backbone, at random weights")
    model.add_argument("model", nargs="?", metavar="MODEL", help="a name of timm, or module:Class")
    model.add_argument(
        "--backbone-args", type=_object, default={}, metavar="JSON", help='e.g. {"img_size": 448}'
    )
    how = params.add_argument_group("method")
    how.add_argument(
        "--method", type=_names, default=("all",), metavar="NAMES", help="a,b,... or all (default)"
    )
    how.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="a hyper-parameter, of every method that has it; may be repeated",
    )
    tasks = params.add_argument_group("tasks and heads")
    tasks.add_argument(
        "--tasks", type=_names, default=PASCAL_CONTEXT, help="a,b,... (those of PASCAL-Context)"
    )
    tasks.add_argument(
        "--channels", type=_channels, default={}, metavar="TASK=N,...", help="of the heads' outputs"
    )
    tasks.add_argument("--head", default="segformer", help="name of the head (segformer)")
    tasks.add_argument("--head-width", type=int, metavar="N", help="width of the head")
    params.add_argument(
        "--papers", action="store_true", help="set our counts beside both papers' printed cells"
    )
    params.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}; expected names parted by commas, each once")
    return names


def _channels(text: str) -> dict[str, int]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): int(count) for name, count in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected e.g. semseg=21,depth=1") from None


def _setting(text: str) -> tuple[str, Any]:
    """Split ``name=value`` and read the value as Python; words parted by commas are a tuple."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}; expected name=value, e.g. ratio=8")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, tuple(value.split(",")) if "," in value else value


def _object(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(
            f'{text!r}; expected JSON as {{"img_size": 448}}'
        ) from None


def _all_channels(tasks: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """Complete ``given`` by what the registered tasks say of themselves."""
    for task in given:
        if task not in tasks:
            raise UnknownNameError.of("task with --channels", task, tasks)
    try:
        return {task: given.get(task) or find_task(task).channels for task in tasks}
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{error} A task of your own needs its output channels, --channels NAME=N."
        ) from error


def _by_method(names: Sequence[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Give each method the hyper-parameters it has; a single one must have them all."""
    if len(names) == 1:
        make_method(names[0], **settings)
        return {names[0]: dict(settings)}
    known = {name: {field.name for field in fields(make_method(name))} for name in names}
    for setting in settings:
        if not any(setting in own for own in known.values()):
            raise UnknownNameError.of("hyper-parameter", setting, set().union(*known.values()))
    return {name: {s: settings[s] for s in settings if s in known[name]} for name in names}


# ---------------------------------------------------------------------- what is printed


def _methods(_: argparse.Namespace) -> str:
    rows = [["method", "passes", "paper", "what it does"]]
    for name in methods():
        how = make_method(name)
        idea = (how.__doc__ or "").partition("\n")[0].replace("``", "")
        rows.append([name, "1" if how.one_path else "T", how.paper, idea])
    return _table(rows, align="<<<<")


def _params(arguments: argparse.Namespace) -> str:
    if arguments.papers:
        return _papers(arguments.json)
    if arguments.model is None:
        raise UnknownNameError(
            "no MODEL given; expected a name of timm, e.g. swin_tiny_patch4_window7_224, or "
            "module:Class. Only --papers needs none."
        )
    names = methods() if arguments.method == ("all",) else arguments.method
    settings = _by_method(names, dict(arguments.settings))
    channels = _all_channels(arguments.tasks, arguments.channels)
    model = build(arguments.model, arguments.backbone_args)
    counter = Counter(model, channels, arguments.head, arguments.head_width)
    counts: list[dict[str, Any]] = []
    for name in names:
        try:
            counts.append(counter.count(name, **settings[name]))
        except PeftDenseError as error:  # noqa: PERF203
            if len(names) == 1:
                raise
            counts.append({"method": name, "error": _one_line(error)})
    if arguments.json:
        about = {"model": arguments.model, "backbone": counter.info.size}
        heads = {"head": arguments.head, "channels": channels}
        return json.dumps({**about, **heads, "methods": counts}, indent=1)
    rows = [["method", *(column.replace("_", " ") for column in _COLUMNS)]]
    for count in counts:
        cells = [f"{count[key]:{how}}" for key, how in _COLUMNS.items() if key in count]
        rows.append([count["method"], *(cells or [count["error"]])])
    outputs = ", ".join(f"{task} {number}" for task, number in channels.items())
    lines = [
        f"{arguments.model}: {counter.info.size:,} parameters without classifier and final norm",
        f"{len(channels)} tasks with {arguments.head} heads: {outputs}",
        "",
        _table(rows, align="<" + ">" * len(_COLUMNS)),
        "",
        _LEGEND,
    ]
    for setting, value in dict(arguments.settings).items():
        having = ", ".join(name for name in names if setting in settings[name])
        lines.append(f"{setting}={value!r} holds for {having}.")
    return "\n".join(lines)


_COLUMNS = {
    "shared": ",",
    "per_task": ",",
    "unfrozen_backbone": ",",
    "encoder": ",",
    "heads": ",",
    "all": ",",
    "percent": ".3f",
    "passes": "",
    "next_task": ",",
}
_LEGEND = """\
Trainable parameters. per task: what serves one task only, summed over the tasks; heads: output
norms included; percent: the encoder's, of the backbone; passes: through the backbone per forward;
next task: what one task more adds to the encoder, its head not included."""


def _papers(as_json: bool) -> str:
    counter = Counter(build(papers.BACKBONE, {}), _all_channels(PASCAL_CONTEXT, {}))
    found: list[dict[str, Any]] = []
    table = [["", "encoder", "printed", "", "all", "printed", "", "in", "certainty"]]
    notes = []
    for row in papers.ROWS:
        count = counter.count(row.method, **row.options)
        encoder, total = count["encoder"], count["all"]
        ours = papers.verdict(encoder, row.encoder), papers.verdict(total, row.total)
        found.append(
            {
                "method": row.method,
                "hyperparameters": dict(row.options),
                "encoder": {"counted": encoder, "printed": row.encoder, "verdict": ours[0]},
                "all": {"counted": total, "printed": row.total, "verdict": ours[1]},
                "places": [papers.PLACES[place] for place in row.places.split()],
                "certainty": row.certainty,
                "note": row.note,
                "fits": row.fits and {"encoder": row.fits[0], "all": row.fits[1]},
            }
        )
        cells = [f"{encoder:,}", row.encoder, ours[0], f"{total:,}", row.total or "-", ours[1]]
        table.append([row.label, *cells, row.places, row.certainty])
        if row.note:
            notes.append(f"{row.label}: {row.note}")
        if row.fits:
            notes[-1] += f" Those counts: {row.fits[0]:,} and {row.fits[1]:,}."
    if as_json:
        return json.dumps(found, indent=1)
    lines = [
        f"Trainable parameters on {papers.BACKBONE}, four tasks,",
        "beside the printed cells in millions: ok, or by how many millions we are off.",
        "",
        _table(table, align="<>>>>>><<"),
        "",
        *(f"{short}: {place}" for short, place in papers.PLACES.items()),
        "",
        *(textwrap.fill(note, 96, subsequent_indent="  ") for note in notes),
    ]
    return "\n".join(lines)


def _table(rows: Sequence[Sequence[str]], align: str) -> str:
    """Lay out rows in columns; a row of two cells in a wider table is a name and a remark."""
    full = [row for row in rows if len(row) == len(align)]
    name = max(len(row[0]) for row in rows)
    widths = [name, *(max(len(row[i]) for row in full) for i in range(1, len(align)))]
    lines = []
    for row in rows:
        if row not in full:
            lines.append(f"{row[0]:<{name}}  {row[1]}")
            continue
        cells = [f"{c:{a}{w}}" for c, a, w in zip(row, align, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
