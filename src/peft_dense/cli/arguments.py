"""Parsers of command-line arguments."""

from __future__ import annotations

import argparse
import ast
import json
from typing import Any

__all__ = ["add_backbone", "add_settings", "channels", "json_object", "names", "setting"]


def add_backbone(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Let a command take a backbone, at random weights."""
    group = parser.add_argument_group("backbone, at random weights")
    group.add_argument(
        "model",
        nargs="?" if optional else None,
        metavar="MODEL",
        help="a name of timm, or module:Class",
    )
    group.add_argument(
        "--backbone-args",
        type=json_object,
        default={},
        metavar="JSON",
        help='e.g. {"img_size": 448}',
    )


def add_settings(parser: argparse._ActionsContainer, meaning: str) -> None:
    """Let a command take hyper-parameters: ``--set NAME=VALUE``, any number of times."""
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help=meaning,
    )


def names(text: str) -> tuple[str, ...]:
    """Split names at commas.

    Example:
        >>> names("semseg, edge")
        ('semseg', 'edge')
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}; expected names with commas between, each once")
    return names


def channels(text: str) -> dict[str, int]:
    """Split ``task=number`` at commas.

    Example:
        >>> channels("semseg=21,depth=1")
        {'semseg': 21, 'depth': 1}
    """
    expected = "expected tasks with numbers from 1, each once, e.g. semseg=21,depth=1"
    try:
        pairs = [part.split("=") for part in text.split(",")]
        found = {name.strip(): int(count) for name, count in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; {expected}") from None
    if len(found) < len(pairs) or min(found.values()) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; {expected}")
    return found


def setting(text: str) -> tuple[str, Any]:
    """Split ``name=value`` and read the value as Python; words with commas are a tuple."""
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


def json_object(text: str) -> dict[str, Any]:
    """Read a JSON object.

    Example:
        >>> json_object('{"img_size": 448}')
        {'img_size': 448}
    """
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        raise argparse.ArgumentTypeError(
            f'{text!r}; expected JSON as {{"img_size": 448}}'
        ) from None
