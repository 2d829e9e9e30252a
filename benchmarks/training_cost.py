#!/usr/bin/env python
"""Measure what a training step of each method costs: time and peak memory, side by side.

    python benchmarks/training_cost.py --method all --image-size 128 96 --batch 8 --bf16

Each method runs in a process of its own, so that no other's memory counts. The rounds go through
all methods in turn, so that what else the machine does falls on all, and a time is the median over
rounds of that round's by decoders_only's. Memory is what the process takes beyond what it had
before its model was built (of a GPU: what PyTorch allocates at most).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import torch
from tqdm import tqdm

from peft_dense.cli.output import exit_status
from peft_dense.data import Scenes, collate
from peft_dense.errors import PeftDenseError, UnknownNameError
from peft_dense.tasks import task
from peft_dense.training import add_options, make_backbone, make_model, read_options
from peft_dense.training.building import named_methods
from peft_dense.training.memory import peak_memory, reset_peak_memory
from peft_dense.training.optimizer import make_optimizer
from peft_dense.training.step import backward

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from timing import in_turn, processes, ratios, spread

BASE = "decoders_only"
TASKS = ("semseg", "human_parts", "sal", "normals")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add_options(parser, batch=8, method="all", tasks=",".join(TASKS))
    parser.add_argument("--repeats", type=int, default=3, help="steps timed in each process")
    parser.add_argument("--rounds", type=int, default=3, help="processes a method")
    parser.add_argument("--threads", type=int, help="of PyTorch, on the CPU")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(args: argparse.Namespace, label: str) -> dict[str, float]:
    """Time steps of one method in this process."""
    setup, recipe = read_options(args)
    name, hyper = named_methods(setup)[label]
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    names = args.tasks.split(",")
    scenes = Scenes(args.batch, args.image_size, names)
    batch = collate([scenes[index] for index in range(args.batch)])
    known = {each: task(each) for each in names}
    torch.manual_seed(0)
    reset_peak_memory(device)
    before = 0 if device.type == "cuda" else peak_memory(device) or 0
    net = make_backbone(setup)
    model = make_model(setup, net, name, hyper, known, recipe.seed).to(device).train()
    if recipe.checkpointing:
        model.encoder.set_grad_checkpointing()
    optimizer = make_optimizer(model, recipe)

    def step() -> None:
        optimizer.zero_grad()
        backward(model, known, batch, recipe)
        optimizer.step()

    times = in_turn({name: step}, args.repeats, device=device)[name]["wall"]
    peak = (peak_memory(device) or 0) - before
    return {"seconds": spread(times)["median"], "memory": peak}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.one:
        print(json.dumps(measure(args, args.one)))
        return
    if BASE not in (labels := list(named_methods(read_options(args)[0]))):
        raise UnknownNameError(f"{BASE} isn't among the methods, and times are ratios to it.")
    names = [BASE, *(name for name in labels if name != BASE)]
    found: dict[str, list[dict[str, float] | None]] = {name: [] for name in names}
    given = list(sys.argv[1:] if argv is None else argv)
    commands = {name: [sys.executable, __file__, *given, "--one", name] for name in names}
    turns = processes(commands, args.rounds)
    bar = tqdm(turns, total=args.rounds * len(names), disable=None)
    for name, done in bar:
        found[name].append(None)  # a round that failed keeps its place: ratios pair the rounds
        if done.returncode == 0:
            found[name][-1] = json.loads(done.stdout.splitlines()[-1])
        else:
            bar.write(f"{name} is left out: {(done.stderr.splitlines() or ['no word'])[-1]}")
    if not any(found[BASE]):
        raise PeftDenseError(f"{BASE} failed in every round, and times are ratios to it.")
    print("| method | step, of decoders_only's | peak memory, GiB |\n|---|--:|--:|")
    for name in names:
        pairs = zip(found[name], found[BASE], strict=True)
        if runs := [(mine, base) for mine, base in pairs if mine and base]:
            mine, base = ([run["seconds"] for run in side] for side in zip(*runs, strict=True))
            peak = max(run["memory"] for run, _ in runs)
            print(f"| {name} | {ratios(mine, base)['median']:.2f} | {peak / 2**30:.2f} |")
    seconds = spread([run["seconds"] for run in found[BASE] if run])["median"]
    where = torch.cuda.get_device_name() if torch.cuda.is_available() and not args.cpu else "CPU"
    print(
        f"\ndecoders_only: {seconds:.3f} s a step of {args.batch} images; {where}, "
        f"{platform.machine()}, {args.threads or torch.get_num_threads()} thread(s), PyTorch "
        f"{torch.__version__}, {date.today()}"
    )


if __name__ == "__main__":
    sys.exit(exit_status(main))
