"""A cache of labels that are slow to compute, as small PNG files outside the data."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from peft_dense.data.labels import Array

__all__ = ["DerivedCache", "default_folder"]


def default_folder() -> Path:
    """Give the folder for derived labels: ``$PEFT_DENSE_CACHE``, else ``~/.cache/peft_dense``.

    Raises:
        RuntimeError: If the variable isn't set and the user has no home.
    """
    chosen = os.environ.get("PEFT_DENSE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "peft_dense"


class DerivedCache:
    """Compute an array from a file once, and read it from a folder from then on.

    ::

        <folder>/<kind>/<name of the source>-<hash>.png

    The hash is of the source's full path, size and time of change: a changed source is computed
    anew. Files appear whole or not at all, so any number of processes may share a folder. A
    damaged one is made anew. The folder may be deleted at any time.

    Args:
        folder: Where to keep arrays; None or True for `default_folder`, False to keep none. If it
            can't be written, a warning says so once, and arrays that aren't in it are computed on
            each access.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as data, tempfile.TemporaryDirectory() as folder:
        ...     source = Path(data, "number.txt")
        ...     _ = source.write_text("7")
        ...     def make(path):
        ...         print("computing")
        ...         return np.full((1, 2), int(path.read_text()), np.uint8)
        ...     cache = DerivedCache(folder)
        ...     first, again = (cache.get("numbers", source, make).tolist() for _ in range(2))
        ...     print(first, again)
        computing
        [[7, 7]] [[7, 7]]
    """

    def __init__(self, folder: str | Path | bool | None = None) -> None:
        self.folder: Path | None = None
        self._writable = folder is not False
        if folder is False:
            return
        try:
            kept = default_folder() if folder in (None, True) else Path(str(folder)).expanduser()
            self.folder = kept = kept.absolute()
            kept.mkdir(parents=True, exist_ok=True)
            if not os.access(kept, os.W_OK | os.X_OK):
                raise PermissionError(f"no permission to write to {kept}")
        except (OSError, RuntimeError) as error:  # RuntimeError: no home
            self._give_up(error)

    def get(self, kind: str, source: Path, make: Callable[[Path], Array]) -> Array:
        """Give ``make(source)``, from the folder if it is there.

        Args:
            kind: Name and version of what ``make`` computes: a subfolder.
            source: The file that it computes from.
            make: Gives an array ``(H, W)`` of uint8.
        """
        path = self._path(kind, source)
        array = None if path is None else _load(path)
        if array is None:
            array = make(source)
            if path is not None and self._writable:
                self._store(path, array)
        return array

    def _path(self, kind: str, source: Path) -> Path | None:
        if self.folder is None:
            return None
        try:
            state = source.stat()
        except OSError:
            return None  # reading it raises the error
        key = f"{source.resolve()}\n{state.st_size}\n{state.st_mtime_ns}"
        digest = blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return self.folder / kind / f"{source.stem[:64]}-{digest}.png"

    def _store(self, path: Path, array: Array) -> None:
        # Not tempfile: its files are for one user alone, and a cache may be shared.
        draft = path.with_name(f".{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(draft, format="PNG")
            os.replace(draft, path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._writable = False
        warnings.warn(
            f"can't keep derived labels: {error}. They are computed on each access, which is slow; "
            "pass cache=FOLDER or set PEFT_DENSE_CACHE to a folder that can be written, or pass "
            "cache=False.",
            stacklevel=3,
        )


def _load(path: Path) -> Array | None:
    try:
        with Image.open(path) as image:
            image.verify()  # the checksums; after it the file has to be opened again
        with Image.open(path) as image:
            return np.asarray(image) if image.mode == "L" else None
    except Exception:  # whatever is wrong with it, it can be made anew
        return None
