#!/usr/bin/env python
"""Train any method on your own images, or on scenes made here, and compare methods in one table.

    python examples/train.py --method decoders_only,shared_adapter,vmt_lite --out runs/demo
    python examples/train.py --method vmt_lite --data FOLDER --out runs/mine --epochs 60 \
        --backbone swin_tiny_patch4_window7_224 --pretrained --image-size 448 448

FOLDER is laid out as peft_dense.data.DenseFolder says; without one, solids and stick people are
rendered. The methods run one after another on the same data, with the same seed and budget. Each
leaves in OUT/METHOD: log.csv, TensorBoard events, grid.png, results.json, and the checkpoints last/
and best/ (adapters and heads only). The table tells of the last step, not of the best one.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from peft_dense import DenseModel, data, inject
from peft_dense.errors import CheckpointError, DataError, PeftDenseError, UnknownNameError
from peft_dense.methods import method as find_method
from peft_dense.tasks import Task, delta_m, task, tasks

Args = argparse.Namespace
Item = dict[str, Any]
Data = Any  # a data set of items with a length
Known = Mapping[str, Task]
Scores = Mapping[str, Mapping[str, float]]

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet
# Loss weights of the multi-task work on PASCAL-Context (Maninis et al., CVPR 2019, and after).
LOSS_WEIGHTS = {"semseg": 1, "human_parts": 2, "sal": 5, "edge": 50, "normals": 10, "depth": 1}
# With neither --backbone nor --weights: a Swin small enough for two CPU cores, at random.
DEMO_BACKBONE = "timm.models.swin_transformer:SwinTransformer"
DEMO_ARGS = """{"img_size": [96, 128], "window_size": 4, "embed_dim": 48, "depths": [2, 2, 2, 2],
    "num_heads": [2, 4, 8, 16]}"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--method", default="vmt_lite", help="one name, or several with commas between")
    add("--hyper", nargs="*", default=[], metavar="[METHOD.]KEY=VALUE", help="hyper-parameters")
    add("--data", default="made", help="'made', or the folder of a DenseFolder")
    add("--tasks", help="with commas between; default: all that the data has and the library knows")
    add("--backbone", default=DEMO_BACKBONE, help="a timm model's name, or module:Class")
    add("--backbone-args", type=json.loads, help="its keyword arguments, as JSON")
    add("--pretrained", action="store_true", help="download the timm model's weights")
    add("--weights", type=Path, help="a safetensors file for the backbone")
    add("--window", type=int, help="call the backbone's set_input_size with this window")
    add("--image-size", type=int, nargs=2, default=(96, 128), metavar=("H", "W"))
    add("--scale", type=float, nargs=2, default=(0.75, 1.25), help="of random crops")
    add("--scenes", type=int, nargs=2, default=(320, 64), help="made scenes: train, val")
    add("--cache", type=int, default=1000, help="keep data sets of up to so many images in memory")
    add("--head-width", type=int, default=64)
    add("--steps", type=int, default=250, help="optimiser steps a method")
    add("--epochs", type=float, help="instead of --steps")
    add("--batch", type=int, default=8)
    add("--lr", type=float, default=2e-3, help="peak; 5%% warm-up, then linear to 0")
    add("--adapter-lr", type=float, help="peak for what the method adds; default: lr")
    add("--backbone-lr", type=float, help="peak for unfrozen backbone parameters; default: lr / 10")
    add("--weight-decay", type=float, default=1e-4)
    add("--loss-weights", nargs="*", default=[], metavar="TASK=WEIGHT", help=f"else {LOSS_WEIGHTS}")
    add("--eval-every", type=int, help="steps between validations; default: a quarter of all")
    add("--seed", type=int, default=0)
    add("--bf16", action="store_true", help="autocast to bfloat16; faster for larger backbones")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--workers", type=int, default=0, help="processes that load data")
    add("--pictures", type=int, default=4, help="rows of grid.png")
    add("--out", type=Path, default=Path("runs/train"))
    return parser.parse_args(argv)


def make_data(args: Args) -> tuple[Known, Data, Data]:
    """Give the tasks, and what to train and to validate on."""
    names = args.tasks.split(",") if args.tasks else None
    augment = [data.RandomScaleCrop(args.image_size, tuple(args.scale)), data.RandomFlip()]
    transforms = {"train": data.Compose(*augment), "val": data.Resize(args.image_size)}
    sets: dict[str, Data] = {}
    for number, split in enumerate(transforms):
        if args.data == "made":
            which = {"tasks": names or tasks(), "seed": 2 * args.seed + number}
            sets[split] = data.Scenes(args.scenes[number], args.image_size, **which)
        else:
            wanted = names or [name for name in data.available_tasks(args.data) if name in tasks()]
            sets[split] = data.DenseFolder(args.data, split, wanted)
    known = {name: make_task(sets["train"], name) for name in sets["train"].tasks}
    for split, transform in transforms.items():
        if len(sets[split]) <= args.cache:
            items = (sets[split][index] for index in range(len(sets[split])))
            sets[split] = data.Cached(tqdm(items, f"reading {split}", len(sets[split]), False))
        sets[split].transform = transform
    return known, sets["train"], sets["val"]


def make_task(examples: Data, name: str) -> Task:
    """Take the classes from the data where it names them, else what the task says by itself."""
    classes = () if name in ("sal", "edge") else examples.classes.get(name, ())  # one channel
    return task(name, channels=len(classes)) if classes else task(name)


def make_backbone(args: Args) -> nn.Module:
    options = args.backbone_args
    if options is None:
        options = json.loads(DEMO_ARGS) if args.backbone == DEMO_BACKBONE else {}
    if ":" in args.backbone:
        module, name = args.backbone.split(":")
        net = getattr(importlib.import_module(module), name)(**options)
    else:
        net = timm.create_model(args.backbone, pretrained=args.pretrained, **options)
    if args.weights:
        load_weights(net, args.weights)
    if args.window:
        net.set_input_size(img_size=tuple(args.image_size), window_size=args.window)
    return net


def load_weights(net: nn.Module, path: Path) -> None:
    """Load what fits, say what doesn't, and refuse a file that is for another backbone."""
    given, own = load_file(path), net.state_dict()
    fits = {k: v.float() for k, v in given.items() if k in own and v.shape == own[k].shape}
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    missing, unused = [k for k in sizes if k not in fits], [k for k in given if k not in fits]
    found = sum(sizes.get(name, 0) for name in fits)
    if 2 * found < sum(sizes.values()):
        raise CheckpointError(
            f"{path} holds {found:,} of the backbone's {sum(sizes.values()):,} parameters, first "
            f"missing: {', '.join(missing[:3])}. Pass the backbone it was saved from."
        )
    net.load_state_dict(fits, strict=False)
    print(f"{path.name}: {len(fits)} tensors loaded; missing: {missing}; unused: {unused}")


class Log:
    """Write scalars to log.csv, a line each, and to TensorBoard."""

    def __init__(self, out: Path) -> None:
        self.file = (out / "log.csv").open("w", newline="")
        self.csv, self.board = csv.writer(self.file), SummaryWriter(str(out))
        self.csv.writerow(["step", "split", "task", "metric", "value"])

    def __call__(self, step: int, split: str, scores: Scores) -> None:
        for name, metrics in scores.items():
            for metric, value in metrics.items():
                self.csv.writerow([step, split, name, metric, f"{value:.6g}"])
                self.board.add_scalar(f"{split}/{name}/{metric}", value, step)
        self.file.flush()

    def close(self) -> None:
        self.file.close()
        self.board.close()


def normalise(images: Tensor, device: str) -> Tensor:
    return ((images - MEAN[:, None, None]) / STD[:, None, None]).to(device)


@torch.no_grad()
def predict(model: DenseModel, images: Tensor, args: Args) -> dict[str, Tensor]:
    model.eval()
    with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
        made = model(normalise(images, args.device))
    return {name: prediction.float().cpu() for name, prediction in made.items()}


def evaluate(model: DenseModel, known: Known, loader: Any, args: Args) -> Scores:
    meters = {name: known[name].meter() for name in known}
    for batch in loader:
        for name, prediction in predict(model, batch["image"], args).items():
            meters[name].update(prediction, batch[name])
    return {name: meter.compute() for name, meter in meters.items()}


def optimise(model: DenseModel, steps: int, args: Args) -> tuple[Any, Any]:
    """Adam for what trains, with smaller steps for pretrained weights; warm-up, then a line."""
    kinds = model.encoder.parameters_by_kind()
    heads = [*model.norms.parameters(), *model.heads.parameters()]
    rates = (args.lr, args.adapter_lr or args.lr, args.backbone_lr or args.lr / 10)
    members = (heads, kinds["shared"] + kinds["per_task"], kinds["unfrozen_backbone"])
    groups = [{"params": p, "lr": rate} for p, rate in zip(members, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
    up = max(1, steps // 20)
    schedule = LambdaLR(optimizer, lambda s: min((s + 1) / up, (steps - s) / max(1, steps - up)))
    return optimizer, schedule


def train(
    name: str, hyper: Item, net: nn.Module, known: Known, sets: Sequence[Data], args: Args
) -> Item:
    """Train one method; write its folder; give its scores, counts and seconds."""
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    encoder = inject(net, name, tasks=tuple(known), **hyper)
    channels = {key: each.channels for key, each in known.items()}
    model = DenseModel(encoder, channels, width=args.head_width).to(args.device)
    load = {"num_workers": args.workers, "collate_fn": data.collate}
    more = {"shuffle": True, "drop_last": len(sets[0]) >= args.batch}
    loader = DataLoader(sets[0], args.batch, **more, **load)
    val = DataLoader(sets[1], args.batch, **load)
    steps = math.ceil(args.epochs * len(loader)) if args.epochs else args.steps
    every = args.eval_every or math.ceil(steps / 4)
    weights = LOSS_WEIGHTS | {k: float(v) for k, v in pairs(args.loss_weights).items()}
    optimizer, schedule = optimise(model, steps, args)

    torch.manual_seed(args.seed)  # the same batches for every method, whatever its own draws were
    log, bar = Log(out), tqdm(total=steps, desc=f"{name:<16}", unit="step")
    first: dict[str, float] = {}
    best, seconds, scores = -math.inf, 0.0, {}
    for step, batch in zip(range(1, steps + 1), chain.from_iterable(repeat(loader)), strict=False):
        start = time.perf_counter()
        model.train()
        images, losses = normalise(batch["image"], args.device), {}
        optimizer.zero_grad()
        for group in encoder.task_groups:  # path by path: T paths need the memory of one
            with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
                made = model(images, group)
            here = {k: known[k].loss(made[k], batch[k].to(args.device)) for k in group}
            sum(weights.get(k, 1) * value for k, value in here.items()).backward()
            losses |= {k: value.item() for k, value in here.items()}
        optimizer.step()
        schedule.step()
        seconds += time.perf_counter() - start
        bar.update()
        if step % 10 == 0 or step == steps:
            loss = sum(weights.get(k, 1) * value for k, value in losses.items())
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            log(step, "train", {k: {"loss": value} for k, value in losses.items()})
            log(step, "train", {"all": {"loss": loss, "lr": optimizer.param_groups[0]["lr"]}})
        if step % every == 0 or step == steps:
            scores = evaluate(model, known, val, args)
            log(step, "val", scores)
            primary = {key: scores[key][each.metric] for key, each in known.items()}
            first = first or primary
            gain = delta_m(primary, first)  # over the first validation
            if not gain <= best:
                best = gain
                model.save(out / "best")
    bar.close()
    log.close()
    model.save(out / "last")
    draw(model, known, sets[1], args).save(out / "grid.png")
    ledger = model.ledger()
    result: Item = {"method": name, "primary": primary, "scores": scores, "seconds": seconds}
    result |= {"encoder": ledger.encoder, "all": ledger.total, "ledger": asdict(ledger)}
    result |= {"steps": steps, "seed": args.seed, "command": sys.argv, "options": vars(args)}
    (out / "results.json").write_text(json.dumps(result, indent=2, default=str) + "\n")
    return result


def draw(model: DenseModel, known: Known, examples: Data, args: Args) -> Image.Image:
    """Lay out image, then truth and prediction a task, a row an example spread over the data."""
    count = min(args.pictures, len(examples))
    batch = data.collate([examples[i * len(examples) // count] for i in range(count)])
    made = predict(model, batch["image"], args)
    rows = []
    for index, image in enumerate(batch["image"]):
        cells = [(image.movedim(0, -1) * 255).byte()]
        for name, each in known.items():
            cells.append(each.draw_target(batch[name][index]))
            cells.append(each.draw_prediction(made[name][index]))
        rows.append(torch.cat([pad(cell, (0, 0, 0, 4, 0, 4), value=255) for cell in cells], 1))
    pixels = pad(torch.cat(rows), (0, 0, 0, 0, 14, 0), value=255)
    sheet = Image.fromarray(pixels.numpy())
    titles = ["image", *(f"{name} {kind}" for name in known for kind in ("truth", "found"))]
    for index, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((index * sheet.width // len(titles) + 1, 1), title, "black")
    return sheet


def table(results: Sequence[Item], known: Known) -> str:
    """Compare methods; Delta is the mean relative gain over decoders_only, else the first."""
    reference = next((r for r in results if r["method"] == "decoders_only"), results[0])
    heads = [f"{k} {each.metric}{'↓↑'[each.higher_is_better]}" for k, each in known.items()]
    left = max(len(result["method"]) for result in results)
    rows = [["method".ljust(left), *heads, "Delta %", "encoder", "all params", "seconds"]]
    for result in results:
        scores = [f"{result['primary'][name]:.2f}" for name in known]
        delta = delta_m(result["primary"], reference["primary"])
        counts = [f"{result[key]:,.0f}" for key in ("encoder", "all", "seconds")]
        rows.append([result["method"].ljust(left), *scores, f"{delta:+.2f}", *counts])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    rule = "-" * len(lines[0])
    note = f"Delta: mean relative gain over {reference['method']}; seconds: of training steps"
    return "\n".join([lines[0], rule, *lines[1:], rule, note])


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Split KEY=VALUE words."""
    if bad := [word for word in words if "=" not in word]:
        raise DataError(f"{bad[0]!r} isn't KEY=VALUE.")
    return dict(word.split("=", 1) for word in words)


def literal(text: str) -> Any:
    """Read a number, a list, true, null; anything else is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def main(argv: Sequence[str] | None = None) -> list[Item]:
    args = parse(argv)
    hypers: dict[str, Item] = {name: {} for name in args.method.split(",")}
    for key, text in pairs(args.hyper).items():
        owner, _, short = key.rpartition(".")
        if owner and owner not in hypers:
            raise UnknownNameError.of("method in --hyper", owner, hypers)
        for name in [owner] if owner else hypers:
            hypers[name][short] = literal(text)
    for name, hyper in hypers.items():
        find_method(name, **hyper)  # a wrong name fails now, not after an hour
    torch.manual_seed(args.seed)
    net = make_backbone(args)
    known, *sets = make_data(args)
    results = [train(name, hyper, net, known, sets, args) for name, hyper in hypers.items()]
    print(f"\n{table(results, known)}\nlogs, checkpoints and pictures: {args.out}")
    return results


if __name__ == "__main__":
    try:
        main()
    except PeftDenseError as error:
        sys.exit(f"error: {error}")
