"""Two files that belong together: tensors (safetensors) and what they are (JSON).

Each is written beside its place and moved there, so a file is whole or absent. A mark that both
carry tells when they come from different saves; the JSON holds the digest of the tensors' file and
one of itself, so any change to either is found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from peft_dense.errors import CheckpointError
from peft_dense.keeping.schema import check_config
from peft_dense.keeping.tensors import (
    LIMIT,
    Header,
    Spec,
    parse,
    read_header,
    read_values,
    write_tensors,
)

__all__ = ["CONFIG", "TENSORS", "Saved", "read", "sign", "write"]

CONFIG, TENSORS = "peft_dense.json", "peft_dense.safetensors"
FORMAT = 4


@dataclass(frozen=True)
class Saved:
    """A folder whose JSON was read and checked, and whose tensors aren't read yet.

    Args:
        folder: The folder.
        config: What the tensors belong to.
    """

    folder: Path
    config: dict[str, Any]
    _header: Header
    _digest: str

    @property
    def specs(self) -> dict[str, Spec]:
        """Type and shape of each tensor, by name."""
        return self._header.specs

    def tensors(self) -> dict[str, Tensor]:
        """Read the values, as new tensors on the CPU.

        Raises:
            CheckpointError: They were edited or damaged after they were saved.
        """
        return read_values(self.folder / TENSORS, self._header, self._digest)


def write(
    folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Path:
    """Write ``tensors`` and ``config`` into ``folder``, which is made if need be.

    A link in the place of a file is replaced, not followed.

    Returns:
        The folder.

    Raises:
        CheckpointError: The configuration holds what JSON can't, a tensor has no values, or the
            disk refuses; what was there stays.
    """
    root, mark = Path(folder), uuid.uuid4().hex
    check_config(config, "the configuration can't be written as JSON")
    staged = {name: root / f".{name}.{mark}" for name in (TENSORS, CONFIG)}
    try:
        root.mkdir(parents=True, exist_ok=True)
        digest = write_tensors(staged[TENSORS], tensors, mark)
        content = {"format": FORMAT, "mark": mark, "tensors": digest, **config}
        text = json.dumps({**content, "digest": sign(content)}, indent=1)
        if len(text) > LIMIT:
            raise CheckpointError(
                f"the configuration takes {len(text)} bytes; at most {LIMIT} are read again. "
                "Give heads and methods shorter options."
            )
        with staged[CONFIG].open("x", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with _or_as_before(root / TENSORS, mark):
            for name, path in staged.items():
                os.replace(path, root / name)
    except OSError as error:
        raise CheckpointError(
            f"can't write into {root} ({error}); what was there before stays. Make room, or give "
            "another folder."
        ) from error
    finally:
        for path in staged.values():
            with contextlib.suppress(OSError):  # as where the folder is a file
                path.unlink(missing_ok=True)
    return root


def read(folder: str | os.PathLike[str]) -> Saved:
    """Read all but the values of what :func:`write` wrote.

    Raises:
        CheckpointError: A file is missing, damaged, edited, of another format, or the two don't
            belong together.
    """
    root = Path(folder)
    for name in (CONFIG, TENSORS):
        if not _is_file(root / name):
            raise CheckpointError(
                f"no {name} in {root}; it holds {_listing(root)}. Was it saved by save()?"
            )
    where = str(root / CONFIG)
    try:
        with (root / CONFIG).open("rb") as file:
            config = parse(file.read(LIMIT + 1))
        given = config["format"]
        if type(given) is not int:
            raise ValueError(f"its format is {given!r:.60}")
        digest = sign(config)
    except (OSError, ValueError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise CheckpointError(f"{where} is damaged ({error!r:.200}); save it again.") from error
    _check_format(given, where)
    if digest != config.get("digest"):
        raise CheckpointError(
            f"{where} was edited or damaged after it was saved: its digest doesn't match. Save it "
            "again, or copy both files anew."
        )
    check_config(config, where)
    header = read_header(root / TENSORS)
    if header.mark is None or header.mark != config.get("mark"):
        raise CheckpointError(
            f"{CONFIG} and {TENSORS} in {root} come from different saves; copy both from one."
        )
    own = {"format", "mark", "tensors", "digest"}
    return Saved(
        folder=root,
        config={key: value for key, value in config.items() if key not in own},
        _header=header,
        _digest=str(config.get("tensors")),
    )


def sign(config: Mapping[str, Any]) -> str:
    """Digest a configuration: SHA-256 of its canonical JSON, without its own ``digest``."""
    content = {key: value for key, value in config.items() if key != "digest"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _check_format(given: int, where: str) -> None:
    if given > FORMAT:
        raise CheckpointError(
            f"{where} has format {given!r:.20}; this version reads up to {FORMAT}. "
            "Update peft-dense."
        )
    if given < FORMAT:
        raise CheckpointError(
            f"{where} has format {given!r:.20}, from before the first release; this version reads "
            f"{FORMAT}. Load it with the version that saved it, or train the adapters again."
        )


@contextlib.contextmanager
def _or_as_before(path: Path, mark: str) -> Iterator[None]:
    """Give ``path`` back what it held if the body fails.

    A kill in between leaves tensors and JSON of different saves, which :func:`read` refuses.
    """
    kept = path.with_name(f".{path.name}.{mark}.before")
    there = os.path.lexists(path)
    if there:
        with contextlib.suppress(OSError):  # a file system without links, or a folder
            os.link(path, kept, follow_symlinks=False)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if kept.exists():
                os.replace(kept, path)
            elif not there:
                path.unlink(missing_ok=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            kept.unlink(missing_ok=True)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _listing(root: Path) -> str:
    try:
        names = sorted(os.listdir(root))
    except OSError:
        names = []
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "") or "nothing"
