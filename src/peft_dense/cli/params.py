"""``peft-dense params``: count what methods train on a backbone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from peft_dense.cli import arguments as read
from peft_dense.cli.output import one_line, table
from peft_dense.cli.papers import beside_papers
from peft_dense.counting import Counter, build
from peft_dense.errors import PeftDenseError, UnknownNameError
from peft_dense.injection import PASCAL_CONTEXT
from peft_dense.methods import method as make_method
from peft_dense.methods import methods
from peft_dense.tasks import task as find_task

__all__ = ["add_params"]


def add_params(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    about = "count the trainable parameters of methods on a backbone"
    params = commands.add_parser("params", help=about, description=about.capitalize() + ".")
    params.set_defaults(run=_params)
    read.add_backbone(params, optional=True)
    how = params.add_argument_group("method")
    how.add_argument(
        "--method",
        type=read.names,
        default=("all",),
        metavar="NAMES",
        help="a,b,... or all (default)",
    )
    read.add_settings(how, "a hyper-parameter, of every method that has it; may be repeated")
    tasks = params.add_argument_group("tasks and heads")
    tasks.add_argument(
        "--tasks", type=read.names, default=PASCAL_CONTEXT, help="a,b,... (those of PASCAL-Context)"
    )
    tasks.add_argument(
        "--channels",
        type=read.channels,
        default={},
        metavar="TASK=N,...",
        help="of the heads' outputs",
    )
    tasks.add_argument("--head", default="segformer", help="name of the head (segformer)")
    tasks.add_argument("--head-width", type=int, metavar="N", help="width of the head")
    params.add_argument(
        "--papers", action="store_true", help="set our counts beside both papers' printed cells"
    )
    params.add_argument("--json", action="store_true", help="print JSON")


def _params(arguments: argparse.Namespace) -> tuple[int, str]:
    if arguments.papers:
        return 0, beside_papers(_all_channels(PASCAL_CONTEXT, {}), arguments.json)
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
            counts.append({"method": name, "error": one_line(error)})
    if arguments.json:
        about = {"model": arguments.model, "backbone": counter.info.size}
        heads = {"head": arguments.head, "channels": channels}
        return 0, json.dumps({**about, **heads, "methods": counts}, indent=1)
    rows = [["method", *(column.replace("_", " ") for column in _COLUMNS)]]
    for count in counts:
        cells = [f"{count[key]:{how}}" for key, how in _COLUMNS.items() if key in count]
        rows.append([count["method"], *(cells or [count["error"]])])
    outputs = ", ".join(f"{task} {number}" for task, number in channels.items())
    lines = [
        f"{arguments.model}: {counter.info.size:,} parameters without classifier and final norm",
        f"{len(channels)} tasks with {arguments.head} heads: {outputs}",
        "",
        table(rows, align="<" + ">" * len(_COLUMNS)),
        "",
        _LEGEND,
    ]
    for setting, value in dict(arguments.settings).items():
        having = ", ".join(name for name in names if setting in settings[name])
        lines.append(f"{setting}={value!r} holds for {having}.")
    return 0, "\n".join(lines)


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


def _all_channels(tasks: Sequence[str], given: Mapping[str, int]) -> dict[str, int]:
    """Complete ``given`` by the registered tasks' own channels."""
    for task in given:
        if task not in tasks:
            raise UnknownNameError.of("task with --channels", task, tasks)
    try:
        return {t: given[t] if t in given else find_task(t).channels for t in tasks}
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
