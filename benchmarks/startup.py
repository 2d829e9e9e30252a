#!/usr/bin/env python
"""Time what comes before the first step: importing, `inject`, `extract_task`.

    python benchmarks/startup.py

Imports are timed in fresh processes that take turns, as a ratio to importing timm; the rest in this
process, in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from peft_dense.cli.output import exit_status
from peft_dense.counting import build

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from showing import Cells, Found, add_outputs, conditions, show
from subjects import read
from timing import CLOCKS, in_turn, processes, ratios, spread

IMPORT = """
import json, time
wall, process = time.perf_counter(), time.process_time()
import {}
print(json.dumps({{"process": time.process_time() - process, "wall": time.perf_counter() - wall}}))
"""
PACKAGES = ("timm", "peft_dense")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    names = ["swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224"]
    add("--backbone", nargs="+", default=names, help="names of timm")
    add("--methods", nargs="+", default=["vmt_lite", "adapter", "lora"])
    add("--tasks", nargs="+", type=int, default=[1, 4], help="numbers of tasks")
    add("--rounds", type=int, default=9)
    add("--threads", type=int, default=1)
    add_outputs(parser)
    return parser.parse_args(argv)


def imports(rounds: int) -> dict[str, Cells]:
    seconds: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in CLOCKS} for name in PACKAGES
    }
    commands = {name: [sys.executable, "-c", IMPORT.format(name)] for name in PACKAGES}
    for name, done in processes(commands, rounds, warm=1):
        done.check_returncode()
        for clock, value in json.loads(done.stdout.splitlines()[-1]).items():
            seconds[name][clock].append(value)
    lines: dict[str, Cells] = {}
    for name, clocks in seconds.items():
        cells = lines[f"import {name}"] = {}
        for clock, values in clocks.items():
            cells[f"over timm, {clock} time"] = ratios(values, seconds["timm"][clock])
        for clock, values in clocks.items():
            cells[f"{clock} time, ms"] = spread([1000 * value for value in values])
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    chosen = read(args.methods)
    found: Found = {"import": imports(args.rounds)}
    for backbone in args.backbone:
        net = build(backbone, {})
        runs = {}
        for each in chosen:
            for count in args.tasks:
                label = f"{each.label}, T = {count}"
                adapted = each.put_on(net, count)
                runs[f"inject, {label}"] = lambda e=each, n=net, c=count: e.put_on(n, c)
                runs[f"extract_task, {label}"] = lambda a=adapted: a.extract_task("task_0")
        times = in_turn(runs, args.rounds)
        found[backbone] = {
            name: {f"{c} time, ms": spread([1000 * s for s in times[name][c]]) for c in CLOCKS}
            for name in runs
        }
    show(found, conditions(rounds=args.rounds, threads=args.threads), args)


if __name__ == "__main__":
    sys.exit(exit_status(main))
