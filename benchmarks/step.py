#!/usr/bin/env python
"""Measure what each option of a training step gains or costs, side by side in one run.

    python benchmarks/step.py --image-size 128 96 --batch 8 --rounds 9
    python benchmarks/step.py --method vmt_lite --backbone swin_tiny_patch4_window7_224 \
        --image-size 448 448 --batch 12 --compile

One process holds a learner per option, all from the same weights and on the same batch. The rounds
go through all of them in turn, so that what else the machine does falls on all; a ratio is the
median over rounds of that round's wall time by that round's of the plain step (no fused update, as
the step was before it had options). Beside them stands a loop of plain torch: the model, the
losses, `loss.backward()` and the optimizer, without anything that `peft_dense.training` adds.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from itertools import count
from pathlib import Path

import torch
from tqdm import tqdm

from peft_dense.cli.output import exit_status
from peft_dense.data import Scenes, collate
from peft_dense.predicting import normalise
from peft_dense.tasks import task
from peft_dense.training import add_options, make_backbone, make_model, read_options
from peft_dense.training.building import named_methods
from peft_dense.training.learner import Learner
from peft_dense.training.step import rounded_products

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from timing import in_turn, ratios, spread

PLAIN = "plain step"
TASKS = ("semseg", "human_parts", "sal", "normals")
OPTIONS = {
    PLAIN: {"fused": False},
    "fused": {"fused": True},
    "channels_last": {"fused": False, "channels_last": True},
    "clip": {"fused": False, "clip": 1.0},
    "ema": {"fused": False, "ema": 0.999},
    "bf16": {"fused": False, "bf16": True},
    "checkpointing": {"fused": False, "checkpointing": True},
    "accumulate 2": {"fused": False, "accumulate": 2},
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add_options(parser, batch=8, steps=1000, tasks=",".join(TASKS))
    parser.add_argument("--rounds", type=int, default=7, help="steps timed of each option")
    parser.add_argument("--threads", type=int, help="of PyTorch, on the CPU")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    setup, recipe = read_options(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    names = args.tasks.split(",")
    known = {each: task(each) for each in names}
    scenes = Scenes(recipe.batch, setup.image_size, names)
    batch = collate([scenes[index] for index in range(recipe.batch)])
    options = dict(OPTIONS)
    if recipe.compile:
        options["compile"] = {"fused": False, "compile": True}
    if device.type == "cuda":
        options["tf32"] = {"fused": False, "tf32": True}
    ((method, hyper),) = named_methods(setup).values()
    net = make_backbone(setup)

    def make(**chosen: object) -> Learner:
        model = make_model(setup, net, method, hyper, known, recipe.seed).to(device)
        return Learner(model, known, replace(recipe, **{"compile": False, **chosen}), args.steps)

    steps: dict[str, Callable[[int], object]] = {}
    for name, chosen in options.items():
        learner = make(**chosen)
        steps[name] = lambda step, learner=learner: learner.learn(batch, step)
    bare = make(fused=False)

    def plain_torch(step: int) -> None:
        bare.model.train()
        bare.optimizer.zero_grad()
        made = bare.model(normalise(bare.model, batch["image"]))
        losses = [
            recipe.weight(name) * known[name].loss(made[name], batch[name].to(device))
            for name in names
        ]
        torch.stack(losses).sum().backward()
        bare.optimizer.step()

    steps["plain torch"] = plain_torch

    def run(name: str) -> Callable[[], None]:
        numbers = count()

        def once() -> None:
            with rounded_products(name == "tf32"):
                steps[name](next(numbers))

        return once

    bar = partial(tqdm, disable=None)
    times = in_turn({name: run(name) for name in steps}, args.rounds, device=device, progress=bar)
    found = {name: clocks["wall"] for name, clocks in times.items()}
    print("| option | step, of the plain one's | range over rounds |\n|---|--:|--:|")
    for name, seconds in found.items():
        ratio = ratios(seconds, found[PLAIN])
        range_ = f"{ratio['least']:.2f} to {ratio['most']:.2f}"
        print(f"| {name} | {ratio['median']:.2f} | {range_} |")
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(
        f"\n{PLAIN}: {spread(found[PLAIN])['median']:.3f} s a step of {recipe.batch} images of "
        f"{setup.image_size[0]} x {setup.image_size[1]}, {method}; {where}, {platform.machine()}, "
        f"{args.threads or torch.get_num_threads()} thread(s), PyTorch {torch.__version__}, "
        f"{args.rounds} rounds, {date.today()}"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
