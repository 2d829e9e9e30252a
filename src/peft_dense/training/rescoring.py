"""Scores of finished runs by the field's conventions, from the models they left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

from peft_dense import data
from peft_dense.dense import DenseModel
from peft_dense.errors import CheckpointError
from peft_dense.tasks import BoundaryMeter
from peft_dense.training.building import make_backbone, make_data
from peft_dense.training.checkpoints import write_whole
from peft_dense.training.evaluation import evaluate
from peft_dense.training.recipe import Recipe
from peft_dense.training.run_folder import read_identity, read_results
from peft_dense.training.setup import Setup

__all__ = ["Convention", "score_run", "setup_of"]


@dataclass(frozen=True, kw_only=True)
class Convention:
    """How runs are scored.

    Args:
        which: Which of a run's models: ``last`` or ``best``.
        labels: ``resized`` to the size of training, or ``native``; the two don't compare.
        edges: Whether to match edges as BSDS does, which is slow.
        tolerance: Its tolerance, as a share of the diagonal; 0.011 is the custom on NYUD.
    """

    which: str = "last"
    labels: str = "resized"
    edges: bool = False
    tolerance: float = 0.0075

    @property
    def file(self) -> str:
        """Where a run keeps scores by this convention."""
        edges = f"-edges-{self.tolerance:g}" * self.edges
        return f"scores-{self.which}-{self.labels}{edges}.json"


class _ResizeImage:
    """Resample the image and leave the labels at their native size."""

    def __init__(self, size: Sequence[int]) -> None:
        self.resize = data.Resize(size)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item | self.resize({"image": item["image"]})


def setup_of(run: Path, place: str | None = None) -> tuple[Setup, Recipe]:
    """Read a run's setup and recipe.

    Args:
        run: Its folder.
        place: Where its data are now, if they have moved.

    Raises:
        CheckpointError: It isn't a run, or one of a script that builds its backbone itself.
    """
    identity = read_identity(run)
    about, recipe = identity["about"], identity["recipe"]
    known = {each.name for each in fields(Setup)} - {"method", "hyper"}
    chosen: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in about.items()
        if name in known
    }
    weights = Path(chosen["weights"]) if chosen.get("weights") else None
    if "backbone" not in chosen:
        raise CheckpointError(
            f"{run} was trained by a script of its own, which alone knows the backbone. Build the "
            "model there (DenseModel.load) and pass it to peft_dense.predict or "
            "peft_dense.training.evaluate."
        )
    chosen |= {"weights": weights, "data": place or chosen["data"], "cache": 0}
    return Setup(**chosen), Recipe(**recipe)


def _name_of(given: str) -> str:
    """Name the data by its folder, that of a dense.toml, or by another description's file."""
    path = Path(given)
    return path.parent.name if path.name == data.FILE else path.name


def score_run(
    run: Path,
    convention: Convention,
    accelerator: Accelerator,
    *,
    place: str | None = None,
    batch: int = 12,
    workers: int = 0,
) -> dict[str, Any]:
    """Give every metric of a finished run: read where an earlier call kept them, else scored.

    Args:
        run: Its folder.
        convention: How to score.
        accelerator: Device and processes, which share the images.
        place: Where its data are now, if they have moved.
        batch: Images at a time, of one size.
        workers: Processes that load data.

    Raises:
        CheckpointError: It isn't a finished run, or its model can't be read.
        DataError: Its data can't be read.
    """
    label = read_results(run)["label"]
    setup, recipe = setup_of(run, place)
    kept = run / convention.file
    there = [json.loads(kept.read_text("utf-8")) if kept.is_file() else None]
    broadcast_object_list(there)  # the first process decides for all
    if there[0] and there[0]["data"] == setup.data:
        return dict(there[0])
    torch.manual_seed(recipe.seed)  # of a backbone at random weights
    net = make_backbone(setup)
    known, _, val = make_data(setup, recipe)
    native = convention.labels == "native"
    if native:
        val.transform = _ResizeImage(setup.image_size)
    model = DenseModel.load(run / convention.which, net).to(accelerator.device)
    meters = {name: each.meter() for name, each in known.items()}
    if convention.edges and "edge" in known:
        meters["edge"] = BoundaryMeter(known["edge"], convention.tolerance)
    skipped: set[str] = set()
    size = "native size" if native else f"{list(setup.image_size)}, resized labels"
    found = {
        "label": label,
        "seed": recipe.seed,
        "data": setup.data,
        "metrics": {name: [each.metric, each.higher_is_better] for name, each in known.items()},
        "protocol": f"{_name_of(setup.data)} val, {size}",
        "scores": evaluate(
            model,
            known,
            val,
            batch=1 if native else batch,
            workers=workers,
            bf16=recipe.bf16,
            skip_bad=recipe.skip_bad,
            skipped=skipped,
            accelerator=accelerator,
            meters=meters,
            progress=True,
        ),
    }
    found["skipped"] = sorted(set(gather_object(sorted(skipped))))
    for reason in found["skipped"]:
        accelerator.print(f"skipped: {reason}")
    if accelerator.is_main_process:
        write_whole(kept, json.dumps(found, indent=1).encode())
    return found
