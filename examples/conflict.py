#!/usr/bin/env python
"""Redraw VMT-Adapter's figure 4: how the tasks' gradients on shared parameters agree in training.

    python examples/conflict.py --method shared_adapter,vmt --out runs/conflict --steps 300

Takes the options of `peft-dense train`, and trains each method by them without scoring it. Every
--watch-every steps it takes the angle between every two tasks' gradients of their weighted losses
(equations 7 and 8), on all parameters that these tasks share; --out gets METHOD.json and .csv of
each, and conflict.png with the histograms side by side. Methods need one path.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from accelerate.utils import set_seed

from peft_dense import DenseModel
from peft_dense.cli.output import exit_status
from peft_dense.cli.train import make_parser, options_of
from peft_dense.conflict import ConflictRecorder
from peft_dense.nn.checks import check_whole
from peft_dense.predicting import normalise
from peft_dense.training.batches import load_batches
from peft_dense.training.building import make_backbone, make_data, make_model, named_methods
from peft_dense.training.launcher import make_accelerator
from peft_dense.training.learner import Learner


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(argv)
    parser.description = (__doc__ or "").split("\n\n")[0]
    parser.add_argument("--watch-every", type=int, default=1, help="steps between two angles")
    return parser.parse_args(argv)


def watch(options: argparse.Namespace) -> list[ConflictRecorder]:
    """Train every method, and record the angles on the way."""
    every = options.watch_every
    check_whole("--watch-every", every)
    setup, recipe = options_of(options)
    runs = named_methods(setup)
    accelerator = make_accelerator(setup.cpu)
    set_seed(recipe.seed)
    net = make_backbone(setup)
    tasks, train, _ = make_data(setup, recipe)
    steps = recipe.steps_for(len(train))
    recorders = []
    for label, (name, hyper) in runs.items():
        model = make_model(setup, net, name, hyper, tasks, recipe.seed).to(accelerator.device)
        learner = Learner(model, tasks, recipe, steps)
        recorder = ConflictRecorder(model, label)
        for step, batch in enumerate(load_batches(train, recipe, 0, steps, accelerator)):
            if step % every == 0:
                recorder.record(_losses(learner, model, batch))
            learner.learn(batch, step)
        recorder.save(setup.out / f"{label}.csv")
        recorder.save(setup.out / f"{label}.json")
        recorders.append(recorder)
    return recorders


def _losses(
    learner: Learner, model: DenseModel, batch: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Give each task's weighted loss, with the graph that its gradient needs."""
    model.train()
    recipe, device = learner.recipe, next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.bf16):
        predictions = model(normalise(model, batch["image"].to(device)))
    return {
        name: recipe.weight(name) * task.loss(predictions[name], batch[name].to(device))
        for name, task in learner.tasks.items()
    }


def main(argv: Sequence[str] | None = None) -> list[ConflictRecorder]:
    options = parse(argv)
    recorders = watch(options)
    for recorder in recorders:
        angles = recorder.angles()
        print(f"{recorder.name}: {recorder.share_of_conflict():.1%} of {angles.numel()} angles "
              f"over 90 degrees; median {angles.nanmedian():.1f}")  # fmt: skip
        for pair, column in zip(recorder.reports[0].pairs, angles.unbind(1), strict=True):
            print(f"  {' and '.join(pair):<24} {(column > 90).double().mean():6.1%}"
                  f"   median {column.nanmedian():5.1f}")  # fmt: skip
    print(recorders[0].picture(options.out / "conflict.png", *recorders[1:]))
    return recorders


if __name__ == "__main__":
    sys.exit(exit_status(main))
