"""Runs of several methods on the same data, one after another."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from peft_dense.errors import HyperparameterError, UnsupportedModelError
from peft_dense.training.options import (
    Args,
    make_backbone,
    make_data,
    make_model,
    make_recipe,
    named_methods,
)
from peft_dense.training.report import table
from peft_dense.training.trainer import Result, Trainer

__all__ = ["run_all"]

# Options that say where and how fast, not what.
_FREE = ("out", "method", "hyper", "cache", "cpu")


def run_all(args: Args) -> list[Result]:
    """Train every method that ``args`` names, print their table, and give their results.

    Of ``all`` and ``papers``, a method that this backbone can't have is left out, with the reason.
    Each has a folder ``args.out / label``. Finished ones are read, the one that was cut off goes
    on, so the same command started again ends where it would have.

    Args:
        args: From a parser with `add_options`.

    Raises:
        PeftDenseError: As its parts.
    """
    recipe, runs = make_recipe(args), named_methods(args)
    accelerator = Accelerator(cpu=args.cpu)
    say = accelerator.print
    set_seed(args.seed)
    net = make_backbone(args)
    known, train, val = make_data(args)
    about = {k: v for k, v in vars(args).items() if k not in (*_FREE, *vars(recipe))}
    if args.data != "made":
        about["data"] = str(Path(args.data).resolve())
    results: list[Result] = []
    left_out: list[str] = []
    for label, (name, hyper) in runs.items():
        try:
            model = make_model(args, net, name, hyper, known)
        except (HyperparameterError, UnsupportedModelError) as error:
            if args.method not in ("all", "papers"):
                raise
            left_out.append(f"{label} is left out: {error}")
            say(left_out[-1])
            continue
        trainer = Trainer(
            model,
            known,
            train,
            val,
            recipe,
            args.out / label.replace(" ", ","),
            label=label,
            about={**about, "method": name, "hyper": hyper},
            accelerator=accelerator,
        )
        results.append(trainer.fit())
        for reason in results[-1]["skipped"]:
            say(f"skipped: {reason}")
        del model, trainer
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    if not results:
        raise UnsupportedModelError(f"no method fits {args.backbone}; {left_out[-1]}")
    say(f"\n{table(results, known)}\nlogs, checkpoints and pictures: {args.out}")
    return results
