"""Command-line options of training scripts, from `Setup` and `Recipe`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from peft_dense.errors import HyperparameterError
from peft_dense.training.building import pairs
from peft_dense.training.recipe import Recipe
from peft_dense.training.run_folder import read_identity
from peft_dense.training.setup import Setup

__all__ = ["HelpFormatter", "add_options", "read_options", "use_config"]


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Show an option's default, where it says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default, text = action.default, action.help
        if default in (None, False, (), []) or default is argparse.SUPPRESS:
            return text
        if isinstance(default, (list, tuple)):
            return f"{text} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Add every option of `Setup` and `Recipe` to a script's parser.

    Args:
        parser: The parser.
        defaults: The script's own defaults, by option.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser, batch=2)
        >>> parser.parse_args(["--method", "lora"]).batch
        2
    """
    groups: dict[str, Any] = {}
    for kind in (Setup, Recipe):
        for each in fields(kind):
            name = each.metadata["group"]
            if name not in groups:
                groups[name] = parser.add_argument_group(name)
            default = None if each.default is MISSING else each.default
            _add(groups[name], each.name, str(each.type), each.metadata, default)
    about = "run.json of a run, or its folder: what isn't given here is as it was there"
    groups["where"].add_argument("--config", type=Path, metavar="PATH", help=about)
    parser.set_defaults(loss_weights=(), **defaults)


def use_config(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Where arguments name a ``--config``, take that run's options as the defaults.

    Args:
        parser: With the options of `add_options`.
        argv: The arguments that it is going to parse.

    Raises:
        CheckpointError: The file isn't a run's ``run.json``.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    path = finder.parse_known_args(list(argv))[0].config
    if path is None:
        return
    identity = read_identity(path)
    about, recipe = identity.get("about", {}), dict(identity.get("recipe", {}))
    known = {each.name for each in fields(Setup)}
    values = {name: value for name, value in about.items() if name in known}
    values["hyper"] = [f"{k}={json.dumps(v)}" for k, v in about.get("hyper", {}).items()]
    weights = recipe.pop("loss_weights", {})
    recipe["loss_weights"] = [f"{task}={weight:g}" for task, weight in weights.items()]
    recipe = {each.name: recipe[each.name] for each in fields(Recipe) if each.name in recipe}
    parser.set_defaults(**values, **recipe)


def _add(group: Any, name: str, kind: str, about: Mapping[str, Any], default: Any) -> None:
    """Add a field as an option, by its annotation."""
    flag, kind = f"--{name.replace('_', '-')}", kind.removesuffix(" | None")
    say: dict[str, Any] = {"help": about["help"], "default": default}
    readers = {"int": int, "float": float, "str": str, "Path": Path}
    letters = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}
    if name == "loss_weights":
        say |= {"nargs": "*", "metavar": "TASK=WEIGHT"}
    elif kind == "bool":
        say["action"] = (
            "store_true" if about["group"] == "where" else argparse.BooleanOptionalAction
        )
    elif kind.startswith("Mapping"):
        say |= {"type": json.loads, "metavar": "JSON"}
    elif kind == "tuple[str, ...]":
        say |= {"nargs": "*", "metavar": "[METHOD.]KEY=VALUE"}
    elif kind.startswith("tuple"):
        each = kind[len("tuple[") :].split(",")[0]
        say |= {"nargs": 2, "type": readers[each], "metavar": about["metavar"]}
    elif "choices" in about:
        say["choices"] = about["choices"]
    else:
        say |= {"type": readers[kind], "metavar": letters[kind]}
    group.add_argument(flag, **say)


def read_options(args: argparse.Namespace) -> tuple[Setup, Recipe]:
    """Make setup and recipe from what a parser with `add_options` read.

    Args:
        args: What it read.

    Raises:
        HyperparameterError: A value isn't allowed.
        DataError: A word of ``--loss-weights`` isn't TASK=NUMBER.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_options(parser)
        >>> setup, recipe = read_options(parser.parse_args(["--method", "lora", "--batch", "4"]))
        >>> setup.method, recipe.batch
        ('lora', 4)
    """
    setup, recipe = ({f.name: getattr(args, f.name) for f in fields(k)} for k in (Setup, Recipe))
    for name, value in setup.items():
        setup[name] = tuple(value) if isinstance(value, list) else value
    try:
        weights = {task: float(weight) for task, weight in pairs(recipe["loss_weights"])}
    except ValueError as error:
        raise HyperparameterError(f"--loss-weights: {error}; expected TASK=NUMBER.") from error
    recipe["loss_weights"] = {**Recipe().loss_weights, **weights}
    return Setup(**setup), Recipe(**recipe)
