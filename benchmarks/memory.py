#!/usr/bin/env python
"""Measure the peak memory of a step over the bound's, and of T paths one by one and all at once.

    python benchmarks/memory.py --methods vmt vmt_lite lora --tasks 1 4

Peak is the most that PyTorch's allocator had given out during the step beyond what lay there
before: of the CPU by the profiler's record of every allocation, of a GPU by the allocator's own
count. Weights are no part of it; buffers inside oneDNN aren't seen. The bound is the frozen
backbone's forward and backward to the input. Path by path means a forward and a backward per path,
one after another. Gradients of all that trains are part of the peak, and shown beside it: no way to
run a step is without them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else the profiler says that there is no GPU

import torch
from torch.profiler import ProfilerActivity, profile

from peft_dense import AdaptedBackbone
from peft_dense.cli.output import exit_status
from peft_dense.counting import build
from peft_dense.errors import PeftDenseError

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from showing import Cells, Found, add_outputs, conditions, show
from subjects import BOUND, NO_GPU, bound, read, step
from timing import ratios, spread


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--backbone", nargs="+", default=["swin_tiny_patch4_window7_224"], help="names of timm")
    add("--size", type=int, default=224, help="height and width of the images")
    add("--batch", type=int, default=2)
    add("--methods", nargs="+", default=["vmt", "vmt_lite", "adapter", "lora"])
    add("--tasks", nargs="+", type=int, default=[1, 4], help="numbers of tasks")
    add("--rounds", type=int, default=3)
    add("--threads", type=int, default=1)
    add("--cpu", action="store_true", help="even where there is a GPU")
    add_outputs(parser)
    return parser.parse_args(argv)


def peak(run: Callable[[], object], device: torch.device) -> float:
    """Give the most that was allocated at once during ``run``, beyond what lay there, in bytes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "trace.json")
        profiled.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    changes = [e for e in events if e.get("name") == "[memory]" and not e["args"]["Device Type"]]
    held = most = 0
    for event in sorted(changes, key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most


def runs(adapted: AdaptedBackbone, images: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Give the ways in which a step can go through the paths."""

    def at_once() -> None:
        step(adapted, adapted, images)

    def by_path() -> None:
        for tasks in adapted.task_groups:
            loss = sum(f.square().mean() for fs in adapted(images, tasks).values() for f in fs)
            loss.backward()
            del loss
        adapted.zero_grad()

    if len(adapted.task_groups) == 1:
        return {"": at_once}
    return {", all at once": at_once, ", path by path": by_path}


def trained_bytes(adapted: AdaptedBackbone) -> int:
    return sum(p.numel() * p.element_size() for p in adapted.parameters() if p.requires_grad)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    gpu = torch.cuda.is_available() and not args.cpu
    device = torch.device("cuda" if gpu else "cpu")
    notes = [] if torch.cuda.is_available() else [NO_GPU]
    found: Found = {}
    for backbone in args.backbone:
        net = build(backbone, {})
        images = torch.randn(args.batch, 3, args.size, args.size, device=device)
        wanting = images.clone().requires_grad_()
        frozen = bound(net).to(device).train()
        chosen: dict[str, Callable[[], object]] = {BOUND: partial(step, frozen, frozen, wanting)}
        gradients = {BOUND: 0}  # but for the input's
        for each in read(args.methods):
            try:
                for count in args.tasks:
                    adapted = each.put_on(net, count).to(device).train()
                    for how, run in runs(adapted, images).items():
                        chosen[f"{each.label}, T = {count}{how}"] = run
                        gradients[f"{each.label}, T = {count}{how}"] = trained_bytes(adapted)
            except PeftDenseError as error:  # noqa: PERF203
                notes.append(f"{each.label} is left out from here on: {error}")
        peaks: dict[str, list[float]] = {name: [] for name in chosen}
        for run in chosen.values():
            run()  # what is kept from the first step on isn't a step's
        for _ in range(args.rounds):
            for name, run in chosen.items():
                peaks[name].append(peak(run, device))
        lines: dict[str, Cells] = {}
        for name, sizes in peaks.items():
            mib = spread([size / 2**20 for size in sizes])
            lines[name] = {
                "peak of a step": ratios(sizes, peaks[BOUND]),
                "peak, MiB": mib,
                "of it gradients, MiB": spread([gradients[name] / 2**20]),
            }
        found[f"{backbone}, {args.size} px, {device}"] = lines
    said = conditions(batch=args.batch, rounds=args.rounds, threads=args.threads)
    show(found, said, args, notes)


if __name__ == "__main__":
    sys.exit(exit_status(main))
