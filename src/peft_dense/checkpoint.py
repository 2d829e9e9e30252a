"""Two files that belong together: tensors (safetensors) and what they are (JSON).

Each is written beside its place and moved there, so a file is whole or absent; a mark that both
carry tells when they come from different saves.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from peft_dense.errors import CheckpointError

__all__ = ["CONFIG", "TENSORS", "read", "write"]

CONFIG, TENSORS = "peft_dense.json", "peft_dense.safetensors"
_FORMAT = 1


def write(
    folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> Path:
    """Write ``tensors`` and ``config`` into ``folder``, which is made if need be.

    Returns:
        The folder.

    Raises:
        CheckpointError: The configuration holds what JSON can't, or the disk refuses; what was
            there stays.
    """
    root = Path(folder)
    mark = uuid.uuid4().hex
    try:
        text = json.dumps({"format": _FORMAT, "mark": mark, **config}, indent=1)
    except TypeError as error:
        raise CheckpointError(
            f"the configuration can't be written as JSON ({error}): {config}. Give heads and "
            "methods options that are numbers, strings or lists of them."
        ) from error
    root.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    staged = {name: root / f".{name}.{mark}" for name in (TENSORS, CONFIG)}
    try:
        save_file(state, staged[TENSORS], metadata={"mark": mark})
        staged[CONFIG].write_text(text, encoding="utf-8")
        for path in staged.values():
            _flush(path)
        for name, path in staged.items():
            os.replace(path, root / name)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"can't write into {root} ({error}); what was there before stays. Make room, or give "
            "another folder."
        ) from error
    finally:
        for path in staged.values():
            path.unlink(missing_ok=True)
    return root


def _flush(path: Path) -> None:
    """See a file's bytes onto the disk, so that a name never stands for less."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def read(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write` wrote.

    Raises:
        CheckpointError: A file is missing, damaged, of a newer format, or the two don't belong
            together.
    """
    root = Path(folder)
    for name in (CONFIG, TENSORS):
        if not (root / name).is_file():
            there = ", ".join(sorted(path.name for path in root.glob("*"))) or "nothing"
            raise CheckpointError(f"no {name} in {root}; it holds {there}. Was it saved by save()?")
    try:
        config = json.loads((root / CONFIG).read_text(encoding="utf-8"))
        given = config["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{root / CONFIG} is damaged ({error}); save it again.") from error
    if given != _FORMAT:
        raise CheckpointError(
            f"{root / CONFIG} has format {given!r}; this version reads {_FORMAT}. "
            "Update peft-dense."
        )
    try:
        with safe_open(root / TENSORS, framework="pt") as file:
            mark = (file.metadata() or {}).get("mark")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{root / TENSORS} is damaged ({error}); save it again.") from error
    if mark != config.get("mark"):
        raise CheckpointError(
            f"{CONFIG} and {TENSORS} in {root} come from different saves; copy both from one."
        )
    return state, config
