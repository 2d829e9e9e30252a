"""Whose folder it is: what a run is made of, written down at its start."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from peft_dense.errors import CheckpointError
from peft_dense.training.checkpoints import Checkpoints, write_whole
from peft_dense.training.recipe import Recipe

__all__ = ["RESULTS", "look", "mark_of", "read_claim"]

RESULTS = "results.json"
"""What a finished run leaves."""

_FILE = "run.json"
_FREE = ("workers", "pictures", "save_every", "eval_every", "skip_bad", "data")
"""What may change when a run goes on: it doesn't move a weight, or only says where data lie."""

Mark = dict[str, Any]


def mark_of(recipe: Recipe, about: Mapping[str, Any]) -> Mark:
    """Give what tells a run from others, as JSON values."""
    whole = {"recipe": asdict(recipe), "about": dict(about)}
    return dict(json.loads(json.dumps(whole, default=str)))


def read_claim(folder: Path) -> Mark:
    """Read what a run's folder says it is.

    Raises:
        CheckpointError: It isn't one.
    """
    path = folder / _FILE
    if not path.is_file():
        raise CheckpointError(f"no {_FILE} in {folder}; give the folder of one run of a method.")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def look(folder: Path, mark: Mark, states: Checkpoints) -> tuple[Any, Any]:
    """Claim a folder for a run; read its results, or else its newest state, if there are any.

    Raises:
        CheckpointError: It is another run's, or can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check(folder, mark)
    write_whole(folder / _FILE, json.dumps(mark, indent=1).encode())
    results = folder / RESULTS
    if results.is_file():
        return json.loads(results.read_text(encoding="utf-8")), None
    return None, states.newest()


def _check(folder: Path, mark: Mark) -> None:
    """See that a folder is this run's, or nobody's."""
    if not (folder / _FILE).is_file():
        return
    there, lines = read_claim(folder), []
    for part in ("recipe", "about"):
        old, new = there.get(part, {}), mark[part]
        lines += [
            f"{name} is {old.get(name)!r} there, {new.get(name)!r} here"
            for name in sorted({*old, *new} - set(_FREE))
            if old.get(name) != new.get(name)
        ]
    if lines:
        raise CheckpointError(
            f"{folder} holds another run: {'; '.join(lines)}. Give this one another folder, or "
            "remove that one."
        )
