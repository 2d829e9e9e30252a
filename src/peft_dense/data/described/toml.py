"""Read TOML files, and write the strings in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from peft_dense.errors import DataError, MissingFileError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["quoted", "read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DataError: If it isn't there, or isn't TOML; the message has the line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise MissingFileError(f"can't read {path}: there is no such file.") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(
            f"{path} isn't TOML: {error}. Texts stand in quotes, as in "
            'images = "photos/{id}.jpg"; lists in brackets.'
        ) from error


def quoted(text: str) -> str:
    r"""Write a text as TOML does.

    Example:
        >>> print(quoted('a "b"'))
        "a \"b\""
    """
    return json.dumps(text, ensure_ascii=False)
