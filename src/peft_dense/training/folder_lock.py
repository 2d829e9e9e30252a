"""One process at a time trains in a folder."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from types import TracebackType

from peft_dense.errors import CheckpointError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FolderLock"]


class FolderLock:
    """Lock a run's folder, from `take` until the end of the ``with``, or of the process.

    A run that a scheduler starts again while the first still lives would mix its states and logs
    with the other's. The lock is the operating system's on an open file: a kill leaves none behind,
    and where the system or the file system has no such locks there is none.

    Args:
        folder: The run's folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, FolderLock(Path(folder)) as lock:
        ...     lock.take()
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: io.TextIOWrapper | None = None

    def take(self) -> None:
        """Make the folder, and lock it.

        Raises:
            CheckpointError: The folder can't be made or written, or another process holds it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / ".lock").open("a", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(
                f"can't make the folder {self.folder} ({error}); give a folder that can be made "
                "and written."
            ) from error
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            raise CheckpointError(
                f"another process is training in {self.folder}. Wait for its end or stop it, or "
                "give another folder (--out)."
            ) from None
        except OSError:  # such as a network's file system without locks
            pass

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
