"""Runs of several methods on the same data, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from peft_dense.data import find_place
from peft_dense.errors import HyperparameterError, UnknownNameError, UnsupportedModelError
from peft_dense.tasks import Task
from peft_dense.training.building import make_backbone, make_data, make_model, named_methods
from peft_dense.training.launcher import make_accelerator
from peft_dense.training.recipe import LOSS_WEIGHTS, Recipe
from peft_dense.training.report import table
from peft_dense.training.run_folder import read_progress
from peft_dense.training.setup import Setup
from peft_dense.training.trainer import Result, Trainer

__all__ = ["run_all"]

_NOT_IDENTITY = ("out", "method", "hyper", "cache", "cpu", "restart")
"""Options that say where and how fast, or that differ from run to run."""


def run_all(setup: Setup, recipe: Recipe, accelerator: Accelerator | None = None) -> list[Result]:
    """Train every method that ``setup`` names, print their table, and give their results.

    Of ``all`` and ``papers``, a method that doesn't fit the backbone is left out, with the reason.
    Each has a folder ``setup.out / label``. Started again, finished runs are read and an
    interrupted one goes on, so that the same command ends where it would have.

    Args:
        setup: Data, methods and place.
        recipe: How to train.
        accelerator: Device and processes; by default what the environment says.

    Raises:
        PeftDenseError: As for `make_data`, `make_backbone`, `make_model` and `Trainer`.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as out:
        ...     data = {"tasks": "sal", "scenes": (4, 2), "image_size": (64, 64)}
        ...     setup = Setup(method="vmt_lite,lora", out=Path(out), cpu=True, **data)
        ...     results = run_all(setup, Recipe(steps=2, batch=2))
        <BLANKLINE>
        method    sal mIoU↑  Delta %  encoder  all params ...
        >>> [result["label"] for result in results]
        ['vmt_lite', 'lora']
    """
    runs = named_methods(setup)
    accelerator = accelerator or make_accelerator(setup.cpu)
    say = accelerator.print
    set_seed(recipe.seed)
    net = make_backbone(setup)
    known, train, val = make_data(setup, recipe)
    _check_weighted(recipe, known)
    about = {k: v for k, v in asdict(setup).items() if k not in _NOT_IDENTITY}
    about["pretrained"] = bool(setup.pretrained)
    begin = _weights_to_begin_with(setup, len(runs))
    if setup.own_data:
        place = find_place(setup.data)
        about["data"] = place.text
        if place.description is not None:
            about["description"] = place.description.digest
    results: list[Result] = []
    left_out: list[str] = []
    for label, (name, hyper) in runs.items():
        try:
            model = make_model(setup, net, name, hyper, known, recipe.seed)
        except (HyperparameterError, UnsupportedModelError) as error:
            if setup.method not in ("all", "papers"):
                raise
            left_out.append(f"{label} is left out: {error}")
            say(left_out[-1])
            continue
        if begin:
            model.load_trainable_state_dict(begin)
        trainer = Trainer(
            model,
            known,
            train,
            val,
            recipe,
            setup.out / label.replace(" ", ","),
            label=label,
            about={**about, "method": name, "hyper": hyper},
            restart=setup.restart,
            accelerator=accelerator,
        )
        results.append(trainer.fit())
        for reason in results[-1]["skipped"]:
            say(f"skipped: {reason}")
        del model, trainer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if not results:
        raise UnsupportedModelError(f"no method fits {setup.backbone}; {left_out[-1]}")
    say(f"\n{table(results, known)}\nlogs, checkpoints and pictures: {setup.out}")
    return results


def _weights_to_begin_with(setup: Setup, runs: int) -> dict[str, torch.Tensor]:
    """Give the latest weights of the run to fork from; nothing where none is named."""
    if setup.fork_from is None:
        return {}
    if runs > 1:
        raise HyperparameterError(
            f"--fork-from {setup.fork_from} is a run of one method, and {runs} are to be trained; "
            "name that one by --method."
        )
    return read_progress(setup.fork_from)


def _check_weighted(recipe: Recipe, known: Mapping[str, Task]) -> None:
    """Raise for a weight of a task that isn't trained: it would do nothing."""
    for name, weight in recipe.loss_weights.items():
        if weight != LOSS_WEIGHTS.get(name) and name not in known:
            raise UnknownNameError.of("task in --loss-weights", name, known)
