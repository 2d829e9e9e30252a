"""States of a run on disk, each whole or not there."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from peft_dense.errors import CheckpointError
from peft_dense.keeping.whole import put_whole

__all__ = ["Checkpoints", "write_whole"]

_NAME = re.compile(r"step_(\d{8})\.ckpt")
_DIGEST = 32  # bytes of a SHA-256


class Checkpoints:
    """Keep the newest states of a run in a folder.

    A state is one file: what `torch.save` writes, and its SHA-256. It is written beside its place,
    tensor by tensor, flushed to the disk and moved there, so a kill or a full disk leaves the
    earlier ones as they were, and no copy of the state is made in memory. A file that isn't what
    was written is set aside as ``*.damaged`` and the one before is read.

    Args:
        folder: Made if need be.
        keep: How many states stay.

    Example:
        >>> import tempfile
        >>> states = Checkpoints(tempfile.mkdtemp())
        >>> states.save(1, {"weight": torch.ones(2)})
        >>> states.save(2, {"weight": torch.zeros(2)})
        >>> states.newest()
        (2, {'weight': tensor([0., 0.])})
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step``; then drop those that are older than the newest ones.

        Raises:
            CheckpointError: It can't be written; earlier states stay.
        """

        def write(file: BinaryIO) -> None:
            digesting = _Digesting(file)
            torch.save(state, digesting)  # type: ignore[arg-type]
            file.write(digesting.digest.digest())

        _stage(self._file(step), write)
        older = [number for number in self.steps() if number <= step]
        for number in older[: -self.keep]:
            self._file(number).unlink(missing_ok=True)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """Read the newest state that is whole, and its step; None if there is none."""
        for step in reversed(self.steps()):
            file = self._file(step)
            if _is_whole(file):  # torch.load ignores the digest at its end
                return step, torch.load(file, "cpu", weights_only=True)
            warnings.warn(
                f"{file} isn't whole; it is kept as {file.name}.damaged and the run goes on from "
                "the state before.",
                stacklevel=2,
            )
            file.replace(file.with_name(f"{file.name}.damaged"))
        return None

    def steps(self) -> list[int]:
        """List the steps of all states, whole or not, oldest first."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.glob("step_*.ckpt"))
        return sorted(int(match[1]) for match in found if match)

    def clear(self) -> None:
        """Delete all states, and what a kill left of one."""
        for path in (*self.folder.glob("step_*.ckpt"), *self.folder.glob(".step_*")):
            path.unlink(missing_ok=True)

    def _file(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}.ckpt"


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, or leave what was there.

    Raises:
        CheckpointError: The disk refuses, for instance because it is full.
    """
    _stage(path, lambda file: file.write(content))


def _stage(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file whole, or raise an error that says what to do."""
    try:
        put_whole(path, write)
    except (OSError, RuntimeError) as error:  # torch.save gives a writer's error another class
        raise CheckpointError(
            f"can't write {path} ({error}); what was there before is whole. Make room, and start "
            "the same command again: it goes on from there."
        ) from error


class _Digesting:
    """Pass bytes on to a file and digest them on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _is_whole(path: Path) -> bool:
    """Compare a file's last bytes with the digest of those before."""
    digest, left = hashlib.sha256(), path.stat().st_size - _DIGEST
    if left < 0:
        return False
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, 1 << 20))
            digest.update(piece)
            left -= len(piece)
        return file.read() == digest.digest()
