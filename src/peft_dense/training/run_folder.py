"""The folder of a run: its identity, its progress and its results."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from safetensors.torch import load_file

from peft_dense.errors import CheckpointError
from peft_dense.training.checkpoints import Checkpoints, write_whole
from peft_dense.training.folder_lock import FolderLock
from peft_dense.training.recipe import Recipe

__all__ = [
    "RESULTS",
    "Identity",
    "Opened",
    "clear_run",
    "identify",
    "open_on_all",
    "open_run",
    "read_identity",
    "read_progress",
    "read_results",
    "read_weights",
]

RESULTS = "results.json"
"""What a finished run leaves."""

_IDENTITY = "run.json"
_MAY_CHANGE = (
    *("workers", "pictures", "save_every", "eval_every", "skip_bad"),
    *("data", "fused", "tf32", "channels_last", "compile"),
)
"""What may differ when a run goes on: how fast, how often, and where the data are."""

Identity = dict[str, Any]
"""What tells a run from others: its recipe, data, model and method."""


def identify(recipe: Recipe, about: Mapping[str, Any]) -> Identity:
    """Give a run's identity, as JSON values."""
    whole = {"recipe": asdict(recipe), "about": dict(about)}
    return dict(json.loads(json.dumps(whole, default=str)))


def read_identity(folder: Path) -> Identity:
    """Read a run's identity from its folder, or from its ``run.json`` or a copy of that.

    Raises:
        CheckpointError: It isn't a run.
    """
    hint = "give the folder of one run of a method"
    if folder.is_file():
        return _read_json(folder.parent, folder.name, hint)
    return _read_json(folder, _IDENTITY, hint)


def read_results(folder: Path) -> dict[str, Any]:
    """Read a finished run's results.

    Raises:
        CheckpointError: It isn't a finished run.
    """
    return _read_json(folder, RESULTS, "it isn't a finished run: start its training again")


def _read_json(folder: Path, name: str, hint: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"no {name} in {folder}; {hint}.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); give another folder, or begin anew with --restart."
        ) from error


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read the tensors that `DenseModel.save` wrote into a folder.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        raise CheckpointError(
            f"{len(files)} safetensors files in {folder}; expected the one that a finished run "
            "leaves. Begin anew with --restart."
        )
    try:
        return load_file(files[0])
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{files[0]} is damaged ({error}); begin anew with --restart."
        ) from error


def open_run(folder: Path, identity: Identity, states: Checkpoints) -> tuple[Any, Any]:
    """Mark a folder as a run's; read its results, or else its newest state, if there are any.

    Raises:
        CheckpointError: It is another run's.
    """
    _check(folder, identity)
    write_whole(folder / _IDENTITY, json.dumps(identity, indent=1).encode())
    if (folder / RESULTS).is_file():
        return read_results(folder), None
    return None, states.newest()


def read_progress(folder: Path) -> dict[str, torch.Tensor]:
    """Read a run's latest weights: those of ``last/``, or of its newest state.

    Raises:
        CheckpointError: It isn't a run, or has kept nothing yet.
    """
    read_identity(folder)
    if (folder / RESULTS).is_file():
        return read_weights(folder / "last")
    found = Checkpoints(folder / "states").newest()
    if found is None:
        raise CheckpointError(
            f"{folder} has no state and no last/ to begin from; give a run that has come further."
        )
    return dict(found[1]["model"])


@dataclass
class Opened:
    """What a run's folder holds.

    Args:
        results: Of a finished run.
        weights: What ``last/`` of a finished run holds.
        state: Step and state to go on from.
    """

    results: dict[str, Any] | None = None
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    state: tuple[int, dict[str, Any]] | None = None


def open_on_all(
    lock: FolderLock,
    identity: Identity,
    states: Checkpoints,
    restart: bool,
    accelerator: Accelerator,
) -> Opened:
    """Mark a folder as a run's, and tell all processes what it holds.

    The first process reads for all, since the others may not see the folder.

    Args:
        lock: Of the run's folder; the first process takes it.
        identity: The run's.
        states: Those in the folder.
        restart: Whether to delete the run that is there first.
        accelerator: The processes.

    Raises:
        CheckpointError: As for `FolderLock.take` and `open_run`, in every process.
    """
    folder = lock.folder
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            lock.take()
            if restart:
                clear_run(folder)
            results, state = open_run(folder, identity, states)
            weights = {} if results is None else read_weights(folder / "last")
            found[0] = Opened(results, weights, state)
        except CheckpointError as error:
            found[1] = str(error)
    broadcast_object_list(found)
    opened, refusal = found
    if refusal is not None:
        raise CheckpointError(refusal)
    return opened  # type: ignore[no-any-return]


def clear_run(folder: Path) -> None:
    """Delete what a run left in its folder, and nothing else.

    Raises:
        CheckpointError: Something can't be deleted.
    """
    try:
        for name in ("states", "best", "last"):
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
        written = ("grid.png", "log.csv", "scores-*.json", "events.out.tfevents.*")
        for pattern in (RESULTS, _IDENTITY, *written):
            for path in folder.glob(pattern):
                os.unlink(path)
    except OSError as error:
        raise CheckpointError(f"can't clear {folder} ({error}); delete it by hand.") from error


def _check(folder: Path, identity: Identity) -> None:
    """Check that a folder is this run's, or no run's."""
    if not (folder / _IDENTITY).is_file():
        return
    there, lines = read_identity(folder), []
    for part in ("recipe", "about"):
        old, new = there.get(part, {}), identity[part]
        lines += [
            f"{name} is {old.get(name)!r} there, {new.get(name)!r} here"
            for name in sorted({*old, *new} - set(_MAY_CHANGE))
            if old.get(name) != new.get(name)
        ]
    if lines:
        raise CheckpointError(
            f"{folder} holds another run: {'; '.join(lines)}. To go on, give what is there. For a "
            "new run give another folder (--out), where --fork-from begins with the weights of "
            "this one, or --restart to drop what is there and begin anew."
        )
