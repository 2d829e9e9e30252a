#!/usr/bin/env python
"""Measure what adapting costs over running the frozen backbone, in one process, on the CPU.

    python benchmarks/speed.py --methods vmt vmt_lite lora --tasks 1 4 --rounds 9

A step is the encoder's forward, a small loss on each feature, and the backward; its bound is the
frozen backbone's forward and backward to the input. Inference is a forward without gradients; its
bound is the frozen backbone's.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import timm
import torch

from peft_dense import AdaptedBackbone, inject
from peft_dense.cli.output import exit_status

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from timing import CLOCKS, in_turn, ratios

BOUND = "frozen backbone"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--backbone", default="swin_tiny_patch4_window7_224")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["vmt", "vmt_lite", "lora"])
    parser.add_argument("--tasks", nargs="+", type=int, default=[1, 4], help="numbers of tasks")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write what was found to this file")
    return parser.parse_args(argv)


def step(adapted: AdaptedBackbone, images: torch.Tensor) -> None:
    features = adapted(images)
    sum(each.square().mean() for stages in features.values() for each in stages).backward()
    adapted.zero_grad()
    images.grad = None


def infer(adapted: AdaptedBackbone, images: torch.Tensor) -> None:
    with torch.no_grad():
        adapted(images)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = timm.create_model(args.backbone)
    # without anything added the path is the frozen backbone, behind the same call
    models = {BOUND: inject(net, "decoders_only", tasks=["one"])}
    for method in args.methods:
        for count in args.tasks:
            names = [f"task_{index}" for index in range(count)]
            models[f"{method}, T = {count}"] = inject(net, method, tasks=names)
    images = torch.randn(args.batch, 3, args.size, args.size)
    wanting = images.clone().requires_grad_()

    def runs(run: Callable, training: bool) -> dict[str, Callable[[], object]]:
        made = {}
        for name, model in models.items():
            given = wanting if training and name == BOUND else images
            made[name] = lambda model=model, given=given: run(model.train(training), given)
        return made

    kinds = {"step": runs(step, True), "inference": runs(infer, False)}
    found: dict[str, dict] = {name: {} for name in models}
    for kind, chosen in kinds.items():
        times = in_turn(chosen, args.rounds)
        for name in models:
            found[name][kind] = {
                clock: ratios(times[name][clock], times[BOUND][clock]) for clock in CLOCKS
            }
    print("| | measure | process time (range) | wall time (range) |\n|---|---|--:|--:|")
    for name, kinds_of_it in found.items():
        for kind, clocks in kinds_of_it.items():
            cells = [
                f"{each['median']:.2f} ({each['least']:.2f} to {each['most']:.2f})"
                for each in clocks.values()
            ]
            print(f"| {name} | {kind} | {' | '.join(cells)} |")
    conditions = (
        f"{args.backbone}, {args.size} px, batch {args.batch}, float32, eager, {args.threads} "
        f"thread(s), {platform.machine()}, PyTorch {torch.__version__}, {args.rounds} rounds, "
        f"{date.today()}"
    )
    print(f"\n{conditions}")
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, "ratios": found}, indent=2))


if __name__ == "__main__":
    sys.exit(exit_status(main))
