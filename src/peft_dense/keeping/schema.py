"""What the JSON of a saved folder may hold: every field's kind, checked before it is used."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from peft_dense.errors import CheckpointError

__all__ = ["check_config"]

_DEEPEST = 8
_LARGEST = 1 << 53  # beyond it JSON readers differ
_MOST_TASKS = 1000

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and what was expected."""


def check_config(config: object, where: str) -> None:
    """Check every field's kind; further fields may hold anything that JSON gives back.

    Args:
        config: What was read, or is to be written.
        where: Its name, for the message.

    Raises:
        CheckpointError: The first field that is missing or of another kind, what it is and what
            was expected.

    Example:
        >>> check_config({"method": 3}, "the configuration")
        Traceback (most recent call last):
            ...
        peft_dense.errors.CheckpointError: the configuration: method is 3; expected a name. ...
    """
    _check(config, {"": _MAPPING}, where)
    assert isinstance(config, Mapping)
    further = config.keys() - _FIELDS.keys() - {"heads"}
    _check(config, _FIELDS | dict.fromkeys(sorted(further), _PLAIN), where)
    _check(config["backbone"], _BACKBONE, where, "backbone.")
    _check(config["backbone"]["weights"], _WEIGHTS, where, "backbone.weights.")
    if "heads" in config:
        _check(config, {"heads": _MAPPING}, where)
        _check(config["heads"], _HEADS, where, "heads.")
        tasks = set(config["tasks"])
        matches: Check = (lambda named: set(named) == tasks, f"an entry per task: {_show(tasks)}")
        _check(config["heads"], dict.fromkeys(("names", "channels"), matches), where, "heads.")


def _check(given: Any, fields: Mapping[str, Check], where: str, prefix: str = "") -> None:
    for field, (is_right, expected) in fields.items():
        if field and field not in given:
            raise CheckpointError(
                f"{where}: {prefix}{field} is missing; expected {expected}. Save it again."
            )
        value = given[field] if field else given
        if not is_right(value):
            raise CheckpointError(
                f"{where}: {prefix}{field or 'all'} is {_show(value)}; expected {expected}. "
                "Save it again, with options that are numbers, strings or lists of them."
            )


def _show(value: object) -> str:
    short = reprlib.Repr()
    short.maxother = short.maxstring = short.maxlong = 60
    short.maxlevel = 2
    try:
        return short.repr(value)
    except ValueError:  # an int of more digits than Python shows
        return f"a huge {type(value).__name__}"


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _mapping_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: _is_mapping(value) and all(map(is_right, value.values()))


def _list_of(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(is_right, value))


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST


def _is_plain(value: object, deep: int = 0) -> bool:
    """Whether JSON gives it back as it was: a scalar, or lists and mappings of such."""
    if isinstance(value, (list, tuple)):
        return deep < _DEEPEST and all(_is_plain(item, deep + 1) for item in value)
    if isinstance(value, Mapping):
        return (
            deep < _DEEPEST
            and _is_mapping(value)
            and all(_is_plain(item, deep + 1) for item in value.values())
        )
    if type(value) is int:
        return abs(value) < _LARGEST
    return value is None or type(value) in (bool, str) or _is_finite(value)


def _is_finite(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


def _are_tasks(value: Any) -> bool:
    if not _list_of(_is_name)(value):
        return False
    return 0 < len(value) <= _MOST_TASKS and len(set(value)) == len(value)


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_finite, value))


def _is_fingerprint(value: object) -> bool:
    return isinstance(value, str) and bool(
        re.fullmatch(r"[0-9a-f]{16}-([0-9a-f]{32}|shapes)", value)
    )


_MAPPING: Check = (_is_mapping, "an object with named fields")
_PLAIN: Check = (_is_plain, "numbers, strings, or lists of them")
_FIELDS: dict[str, Check] = {
    "method": (_is_name, "a name"),
    "hyperparameters": (
        _mapping_of(_is_plain),
        "numbers, strings, or lists of them, by name",
    ),
    "tasks": (_are_tasks, f"1 to {_MOST_TASKS} names, each once"),
    "backbone": _MAPPING,
}
_BACKBONE: dict[str, Check] = {
    "class": (_is_name, "a name"),
    "parameters": (_mapping_of(_list_of(_is_size)), "shapes by name"),
    "weights": _MAPPING,
}
_WEIGHTS: dict[str, Check] = {
    "digest": (_is_fingerprint, "a fingerprint of weights"),
    "dtypes": (_list_of(_is_name), "names of types"),
    "rounded": (_mapping_of(_is_fingerprint), "fingerprints by type"),
    "fits": (_list_of(_is_name), "names of types"),
    "sketch": (_mapping_of(_is_pair), "two numbers per tensor"),
}
_HEADS: dict[str, Check] = {
    "names": (_mapping_of(lambda name: name is None or _is_name(name)), "names of heads by task"),
    "options": (_mapping_of(_is_plain), "numbers, strings, or lists of them, by name"),
    "channels": (
        _mapping_of(lambda value: _is_size(value) and value > 0),
        "whole numbers from 1 up, by task",
    ),
}
