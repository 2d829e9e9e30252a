"""Write keys and values as TOML does, and find names of classes that lie in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peft_dense.data.described.toml import quoted

__all__ = ["given_names", "toml_key", "toml_value"]

_NAMES = ("classes.txt", "class_names.txt", "labels.txt", "label_names.txt", "codes.txt")


def toml_key(name: Any) -> str:
    """Write a key, in quotes where it needs them.

    Example:
        >>> toml_key("road"), toml_key("traffic light")
        ('road', '"traffic light"')
    """
    text = str(name)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else quoted(text)


def toml_value(value: Any) -> str:
    """Write a text, a number, true or false, or a list of such.

    Example:
        >>> toml_value(["a", 1, True])
        '["a", 1, true]'
    """
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (list, tuple)):
        flat = ", ".join(map(toml_value, value))
        return f"[{flat}]" if len(flat) < 80 else f"[\n{_wrapped(map(toml_value, value))}\n]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrapped(texts: Iterable[str]) -> str:
    lines, line = [], "   "
    for text in texts:
        if len(line) + len(text) > 96:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return "\n".join([*lines, line])


def given_names(root: Path) -> dict[str, list[str]]:
    """Read names of classes that lie in the folder: classes.json, or a list of them."""
    try:
        said = json.loads((root / "classes.json").read_text(encoding="utf-8-sig"))
        return {task: names for task, names in said.items() if isinstance(names, list)}
    except (OSError, ValueError, AttributeError):
        pass
    for name in _NAMES:
        try:
            lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        names = [line.strip() for line in lines if line.strip()]
        if 1 < len(set(names)) == len(names) < 1000:
            return {"semseg": names}
    return {}
