"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

__all__ = ["put_whole"]


def put_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, and move it there once it is on the disk.

    Folders are made if need be. Whatever fails, what was at ``path`` is as it was.

    Args:
        path: Its place.
        write: Writes to the open file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "new" / "a.txt"
        >>> put_whole(path, lambda file: file.write(b"whole"))
        >>> path.read_bytes(), [each.name for each in path.parent.iterdir()]
        (b'whole', ['a.txt'])
    """
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    finally:
        with contextlib.suppress(OSError):  # such as a file in a folder's place
            staged.unlink(missing_ok=True)
