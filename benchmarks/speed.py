#!/usr/bin/env python
"""Measure what adapting costs over running the frozen backbone, in one process.

    python benchmarks/speed.py --methods vmt vmt_lite lora --tasks 1 4 --rounds 9
    python benchmarks/speed.py --methods "lora rank=16 targets=qkv,proj,fc1,fc2" --tasks 1 --merged
    python benchmarks/speed.py --methods vmt_lite multitask_full --tasks 4 --dense

A step is the encoder's forward, a small loss on each feature, and the backward; its bound is the
frozen backbone's forward and backward to the input. Inference is a forward without gradients; its
bound is the frozen backbone's. FLOPs are those of products and convolutions: what is above them is
memory and overhead. The CPU is always measured; a GPU, where there is one, in bfloat16,
eager and compiled, by its own events, with the peak of what its allocator gave out.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from peft_dense import AdaptedBackbone, DenseModel
from peft_dense.cli.output import exit_status
from peft_dense.counting import build
from peft_dense.data import Scenes, collate
from peft_dense.errors import PeftDenseError
from peft_dense.nn import Bottleneck
from peft_dense.tasks import task

sys.path.insert(0, str(Path(__file__).parent))  # also where a test loads this file by its path
from showing import Cells, Found, add_outputs, conditions, show
from subjects import BOUND, NO_GPU, Call, bound, infer, mean_squares, plain, read, step
from timing import clocks_of, flops, in_turn, ratios, spread

KINDS = ("semseg", "human_parts", "sal", "normals")
WIDTH = 256  # of the papers' heads


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--backbone", nargs="+", default=["swin_tiny_patch4_window7_224"], help="names of timm")
    add("--size", nargs="+", type=int, default=[224], help="heights and widths of the images")
    add("--batch", type=int, default=2)
    add("--methods", nargs="+", default=["vmt", "vmt_lite", "lora"], help="'NAME KEY=VALUE ...'")
    add("--tasks", nargs="+", type=int, default=[1, 4], help="numbers of tasks")
    add("--dense", action="store_true", help="also the whole DenseModel, heads and losses")
    add("--merged", action="store_true", help="also one task's inference, extracted and merged")
    add("--modes", nargs="+", choices=("eager", "compiled"), help="CPU: eager; GPU: both")
    add("--precision", choices=("float32", "bfloat16"), help="CPU: float32; GPU: bfloat16")
    add("--rounds", type=int, default=9)
    add("--threads", type=int, default=1)
    add("--cpu", action="store_true", help="even where there is a GPU")
    add_outputs(parser)
    return parser.parse_args(argv)


@dataclass
class Case:
    """One thing to be timed, and by what it is divided."""

    run: Callable[[], object]
    over: str = BOUND


class Setting:
    """Collect what is timed on one backbone, at one size, on one device."""

    def __init__(self, net: nn.Module, args: argparse.Namespace, size: int, where: Where) -> None:
        self.net, self.args, self.where = net, args, where
        self.size = size
        self.images = torch.randn(args.batch, 3, size, size, device=where.device)
        self.steps: dict[str, Case] = {}
        self.inferences: dict[str, Case] = {}

    def add(self, name: str, model: nn.Module, tasks: list[str] | None = None) -> None:
        """Time a step and an inference of ``model``, for these tasks."""
        model.to(self.where.device)
        call, images = self.where.call(model, tasks), self.images
        if name == BOUND:
            images = images.clone().requires_grad_()
        loss = mean_squares
        if isinstance(model, DenseModel):
            loss = self._losses(model)
        self.steps[name] = Case(lambda: step(call, model.train(), images, loss))
        self.add_inference(name, model, tasks)

    def add_inference(
        self, name: str, model: nn.Module, tasks: list[str] | None = None, over: str = BOUND
    ) -> None:
        call = self.where.call(model.to(self.where.device), tasks)
        self.inferences[name] = Case(lambda: infer(self._in_eval(model, call), self.images), over)

    @staticmethod
    def _in_eval(model: nn.Module, call: Call) -> Call:
        model.eval()
        return call

    def _losses(self, model: DenseModel) -> Callable[[dict[str, Tensor]], Tensor]:
        kinds = {name: KINDS[i % len(KINDS)] for i, name in enumerate(model.tasks)}
        scenes = Scenes(self.args.batch, (self.size, self.size), KINDS)
        batch = collate([scenes[index] for index in range(self.args.batch)])
        labels = {kind: batch[kind].to(self.where.device) for kind in KINDS}
        known = {kind: task(kind) for kind in KINDS}
        return lambda made: torch.stack(
            [known[kinds[name]].loss(each, labels[kinds[name]]) for name, each in made.items()]
        ).sum()

    def times(self) -> dict[str, Cells]:
        """Time all, kind by kind."""
        found: dict[str, Cells] = {}
        for kind, cases in (("step", self.steps), ("inference", self.inferences)):
            runs = {name: case.run for name, case in cases.items()}
            warm = 3 if self.where.mode == "compiled" else 1
            times = in_turn(runs, self.args.rounds, warm=warm, device=self.where.device)
            eager = self.where.mode == "eager"
            counts = {name: flops(run) for name, run in runs.items()} if eager else {}
            for name, case in cases.items():
                label = name if case.over == BOUND else f"{name}, over {case.over}"
                cells = found.setdefault(label, {})
                for clock in clocks_of(self.where.device):
                    mine, its = times[name][clock], times[case.over][clock]
                    cells[f"{kind}, {clock} time"] = ratios(mine, its)
                if counts:
                    cells[f"{kind}, FLOPs"] = spread([counts[name] / counts[case.over]])
                if self.where.device.type == "cuda":
                    cells[f"{kind}, peak MiB"] = spread([self.where.peak(case.run)])
        return found


@dataclass(frozen=True)
class Where:
    """A device, a precision, and eager or compiled."""

    device: torch.device
    precision: str
    mode: str

    def call(self, model: nn.Module, tasks: list[str] | None) -> Call:
        """Give what turns images into features or predictions."""
        run = torch.compile(model) if self.mode == "compiled" else model
        rounded = self.precision == "bfloat16"

        def forward(images: Tensor) -> object:
            # a context that isn't needed would be timed too
            how = torch.autocast(self.device.type, torch.bfloat16) if rounded else None
            with how or contextlib.nullcontext():
                return run(images) if tasks is None else run(images, tasks)

        return forward

    def peak(self, run: Callable[[], object]) -> float:
        """Give the peak that the GPU's allocator gave out beyond what was there, in MiB."""
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        run()
        torch.cuda.synchronize(self.device)
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20


def places(args: argparse.Namespace) -> list[Where]:
    """Give where to measure: the CPU, and a GPU where there is one."""
    gpu = torch.cuda.is_available() and not args.cpu
    kinds = [("cpu", "float32", ["eager"])] + [("cuda", "bfloat16", ["eager", "compiled"])] * gpu
    return [
        Where(torch.device(device), args.precision or precision, mode)
        for device, precision, modes in kinds
        for mode in args.modes or modes
    ]


def fill(setting: Setting, args: argparse.Namespace, notes: list[str]) -> None:
    """Put every method on; one that can't be is left out, with its reason in ``notes``."""
    net = setting.net
    setting.add(BOUND, bound(net))
    for chosen in read(args.methods):
        try:
            for count in args.tasks:
                name = f"{chosen.label}, T = {count}"
                adapted = chosen.put_on(net, count)
                if any(parameter.requires_grad for parameter in adapted.parameters()):
                    setting.add(name, adapted)  # decoders_only's encoder has no step
                if count > 1 and not chosen.one_path:
                    setting.add(f"{name}, one path", adapted, ["task_0"])
                if args.dense:
                    setting.add(f"{name}, DenseModel", dense(adapted))
            if args.merged:
                add_merged(setting, chosen.label, chosen.put_on(net, 2))
        except PeftDenseError as error:  # noqa: PERF203
            notes.append(f"{chosen.label} is left out from here on: {error}")


def dense(adapted: AdaptedBackbone) -> DenseModel:
    channels = {name: task(KINDS[i % len(KINDS)]).channels for i, name in enumerate(adapted.tasks)}
    return DenseModel(adapted, channels, width=WIDTH)


def add_merged(setting: Setting, label: str, adapted: AdaptedBackbone) -> None:
    """Time one task's path after merge; what is baked into adapters also over plain ones.

    A step of those plain ones is what a step of a hypernetwork could cost at best.
    """
    merged = adapted.extract_task("task_0").merge()
    setting.add_inference(f"{label}, merged", merged)
    if any(isinstance(module, Bottleneck) for module in merged.modules()):
        adapters = f"plain adapters of {label}"
        setting.add(adapters, plain(setting.net, adapted))
        setting.add_inference(f"{label}, baked", merged, over=adapters)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.modes is None or "compiled" in args.modes:
        # One class is compiled once per model and mode here; past the limit torch runs it eagerly.
        torch._dynamo.config.recompile_limit = 10_000
        torch._dynamo.config.accumulated_recompile_limit = 10_000
    read(args.methods)
    found: Found = {}
    notes = [] if torch.cuda.is_available() else [NO_GPU]
    for backbone in args.backbone:
        net = build(backbone, {})
        for size in args.size:
            for where in places(args):
                group = f"{backbone}, {size} px, {where.device}, {where.precision}, {where.mode}"
                setting = Setting(net, args, size, where)
                try:
                    fill(setting, args, notes)
                    found[group] = setting.times()
                except PeftDenseError as error:
                    notes.append(f"{group} is left out: {error}")
    said = conditions(batch=args.batch, rounds=args.rounds, threads=args.threads)
    show(found, said, args, notes)


if __name__ == "__main__":
    sys.exit(exit_status(main))
