#!/usr/bin/env python
"""Time this library's LoRA and DoRA beside HF peft's, at equal settings, in one process.

    python benchmarks/peers.py
    python benchmarks/peers.py --checkout ../other "models.encoder:make"

Both sit on the same frozen weights and on the same linears, and the stages are read in the same
way. ``--checkout`` names a folder and in it a callable that gives an encoder: a module from images
to maps, in lists and dicts. What isn't there is said and left out. Only the CPU is measured.
"""

from __future__ import annotations

import argparse
import copy
import pkgutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from peft_dense import inject
from peft_dense.cli.output import exit_status
from peft_dense.counting import build

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from showing import Cells, add_outputs, conditions, show
from subjects import BOUND, Call, bound, infer, step
from timing import CLOCKS, flops, in_turn, ratios, spread

EVERY = ("qkv", "proj", "fc1", "fc2")
SETTINGS = {
    f"{name} r {rank}, {where}": (name, rank, targets)
    for rank, where, targets in ((4, "qkv", ("qkv",)), (16, "all linears", EVERY))
    for name in ("lora", "dora")
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--backbone", default="swin_tiny_patch4_window7_224", help="a name of timm")
    add("--size", type=int, default=224, help="height and width of the images")
    add("--batch", type=int, default=2)
    add("--rounds", type=int, default=9)
    add("--threads", type=int, default=1)
    add("--checkout", nargs=2, action="append", default=[], metavar=("FOLDER", "MODULE:CALLABLE"))
    add_outputs(parser)
    return parser.parse_args(argv)


def peft_encoder(net: nn.Module, name: str, rank: int, targets: list[str]) -> nn.Module:
    """Put HF peft's layers on a frozen copy of the backbone."""
    import peft

    config = peft.LoraConfig(
        r=rank, lora_alpha=16, lora_dropout=0.0, target_modules=targets, use_dora=name == "dora"
    )
    copied = copy.deepcopy(net).requires_grad_(False)
    made: nn.Module = peft.inject_adapter_in_model(config, copied)
    return made


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = build(args.backbone, {})
    images = torch.randn(args.batch, 3, args.size, args.size)
    wanting = images.clone().requires_grad_()
    frozen = bound(net)
    info = frozen.info
    models: dict[str, tuple[nn.Module, Call]] = {BOUND: (frozen, frozen)}
    pairs: dict[str, str] = {}
    notes: list[str] = []
    try:
        import peft

        theirs = f"HF peft {peft.__version__}"
    except ImportError:
        theirs = ""
        notes.append("HF peft isn't installed (pip install peft): nothing of it was timed.")
    for label, (name, rank, targets) in SETTINGS.items():
        ours = inject(net, name, tasks=["task_0"], rank=rank, alpha=16.0, targets=targets)
        models[f"{label}: ours"] = (ours, ours)
        if theirs:
            linears = [linear.name for linear in info.linears(targets)]
            peer = peft_encoder(net, name, rank, linears)
            models[f"{label}: {theirs}"] = (peer, lambda x, m=peer: info.stage_outputs(m, x))
            pairs[f"{label}: ours"] = f"{label}: {theirs}"
    for folder, target in args.checkout:
        sys.path.insert(0, folder)
        try:
            other = pkgutil.resolve_name(target)()
            step(other, other, images)
            models[f"{target} of {folder}"] = (other, other)
        except Exception as error:  # another's code may fail in any way; ours is timed anyway
            notes.append(f"{target} of {folder} is left out: {error!r}")
        finally:
            sys.path.remove(folder)

    def run(name: str, training: bool) -> Callable[[], object]:
        model, call = models[name]
        given = wanting if name == BOUND else images
        if training:
            return lambda: (model.train(), step(call, model, given))
        return lambda: (model.eval(), infer(call, images))

    lines: dict[str, Cells] = {name: {} for name in models}
    for kind, training in (("step", True), ("inference", False)):
        runs = {name: run(name, training) for name in models}
        times = in_turn(runs, args.rounds)
        counts = {name: flops(each) for name, each in runs.items()}
        for name in models:
            lines[name][f"{kind}, FLOPs"] = spread([counts[name] / counts[BOUND]])
            for clock in CLOCKS:
                mine = times[name][clock]
                lines[name][f"{kind}, {clock} time"] = ratios(mine, times[BOUND][clock])
                if name in pairs:
                    over = f"{name}, over HF peft's"
                    column = f"{kind}, {clock} time"
                    lines.setdefault(over, {})[column] = ratios(mine, times[pairs[name]][clock])
    group = f"{args.backbone}, {args.size} px, cpu, float32, eager"
    said = conditions(batch=args.batch, rounds=args.rounds, threads=args.threads)
    show({group: lines}, said, args, notes)


if __name__ == "__main__":
    sys.exit(exit_status(main))
