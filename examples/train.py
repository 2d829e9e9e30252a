#!/usr/bin/env python
"""Train any method on your own images, or on scenes made here, and compare methods in one table.

    python examples/train.py --method decoders_only,shared_adapter,vmt_lite --data made --out runs/demo
    python examples/train.py --method vmt_lite --data FOLDER --backbone swin_tiny_patch4_window7_224 \
        --pretrained --image-size 448 448 --epochs 60 --out runs/mine

FOLDER is laid out as peft_dense.data.DenseFolder says; `made` renders solids and stick people. The
methods run one after another on the same data, with the same seed and budget. Each leaves in
OUT/METHOD: log.csv, TensorBoard events, grid.png, results.json, and the checkpoints last/ and best/
(adapters and heads only). Numbers are those of the last step, not of the best one.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import importlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from peft_dense import DenseModel, inject
from peft_dense.data import (
    Cached,
    Compose,
    DenseFolder,
    RandomFlip,
    RandomScaleCrop,
    Resize,
    Scenes,
    available_tasks,
    collate,
)
from peft_dense.errors import CheckpointError, DataError, PeftDenseError
from peft_dense.methods import method as find_method
from peft_dense.tasks import Task, delta_m, task, tasks

Item = dict[str, Any]
Scores = dict[str, dict[str, float]]

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet
# Loss weights of the multi-task work on PASCAL-Context (Maninis et al., CVPR 2019, and after).
LOSS_WEIGHTS = {"semseg": 1, "human_parts": 2, "sal": 5, "edge": 50, "normals": 10, "depth": 1}
# With neither --backbone nor --weights: a Swin small enough for two CPU cores, at random.
DEMO_BACKBONE = "timm.models.swin_transformer:SwinTransformer"
DEMO_ARGS = {
    "img_size": (96, 128),
    "window_size": 4,
    "embed_dim": 48,
    "depths": (2, 2, 2, 2),
    "num_heads": (2, 4, 8, 16),
}


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


# ------------------------------------------------------------------------------------------- data
def make_data(args: argparse.Namespace) -> tuple[dict[str, Task], Dataset[Item], Dataset[Item]]:
    """Give the tasks, and what to train and to validate on."""
    names = args.tasks.split(",") if args.tasks else None
    augment = Compose(RandomScaleCrop(args.image_size, tuple(args.scale)), RandomFlip())
    transforms = {"train": augment, "val": Resize(args.image_size)}
    data: dict[str, Any] = {}
    for number, split in enumerate(transforms):
        if args.data == "made":
            size, wanted = args.image_size, names or tasks()
            data[split] = Scenes(args.scenes[number], size, wanted, seed=2 * args.seed + number)
        else:
            wanted = names or [name for name in available_tasks(args.data) if name in tasks()]
            data[split] = DenseFolder(args.data, split, wanted)
    known = {name: make_task(data["train"], name) for name in data["train"].tasks}
    for split, transform in transforms.items():
        if len(data[split]) <= args.cache:
            items = (data[split][index] for index in range(len(data[split])))
            bar = tqdm(items, f"reading {split}", len(data[split]), leave=False)
            data[split] = Cached(bar, transform)
        data[split].transform = transform
    return known, data["train"], data["val"]


def make_task(data: DenseFolder | Scenes, name: str) -> Task:
    """Take the classes from the data where it names them, else what the task says by itself."""
    classes = data.classes.get(name, ())
    one_channel = name in ("sal", "edge")  # even where both values have a name
    return task(name) if one_channel or not classes else task(name, channels=len(classes))


# --------------------------------------------------------------------------------------- backbone
def make_backbone(args: argparse.Namespace) -> nn.Module:
    options = args.backbone_args
    if options is None:
        options = DEMO_ARGS if args.backbone == DEMO_BACKBONE else {}
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
    missing = [name for name, _ in net.named_parameters() if name not in fits]
    unused = [name for name in given if name not in fits]
    numbers = {name: p.numel() for name, p in net.named_parameters()}
    found = sum(numbers.get(name, 0) for name in fits)
    if found < sum(numbers.values()) / 2:
        raise CheckpointError(
            f"{path} holds {found:,} of the backbone's {sum(numbers.values()):,} parameters, first "
            f"missing: {', '.join(missing[:3])}. Pass the backbone it was saved from, with the same "
            "--backbone-args."
        )
    net.load_state_dict(fits, strict=False)
    print(
        f"{path.name}: {len(fits)} tensors loaded; missing: {', '.join(missing[:5]) or 'none'}"
        f"; unused: {', '.join(unused[:5]) or 'none'}"
    )


# --------------------------------------------------------------------------------- train and score
def normalise(images: Tensor, device: str) -> Tensor:
    return ((images - MEAN[:, None, None]) / STD[:, None, None]).to(device)


@torch.no_grad()
def predict(model: DenseModel, images: Tensor, args: argparse.Namespace) -> dict[str, Tensor]:
    model.eval()
    with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
        made = model(normalise(images, args.device))
    return {name: prediction.float().cpu() for name, prediction in made.items()}


def evaluate(
    model: DenseModel, known: Mapping[str, Task], loader: DataLoader[Item], args: argparse.Namespace
) -> Scores:
    meters = {name: known[name].meter() for name in known}
    for batch in loader:
        for name, prediction in predict(model, batch["image"], args).items():
            meters[name].update(prediction, batch[name])
    return {name: meter.compute() for name, meter in meters.items()}


def primary(known: Mapping[str, Task], scores: Scores) -> dict[str, float]:
    return {name: scores[name][known[name].metric] for name in known}


def forever(loader: DataLoader[Item]) -> Iterator[Item]:
    while True:
        yield from loader


def train(
    name: str, hyper: Item, net: nn.Module, known: Mapping[str, Task],
    data: tuple[Dataset[Item], Dataset[Item]], args: argparse.Namespace,
) -> Item:  # fmt: skip
    """Train one method; write its folder; give its scores, counts and seconds."""
    out = args.out / name
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    encoder = inject(net, name, tasks=tuple(known), **hyper)
    channels = {task_name: known[task_name].channels for task_name in known}
    model = DenseModel(encoder, channels, width=args.head_width).to(args.device)
    loader = DataLoader(
        data[0], args.batch, shuffle=True, drop_last=len(data[0]) >= args.batch,  # type: ignore
        num_workers=args.workers, collate_fn=collate, persistent_workers=args.workers > 0,
    )  # fmt: skip
    val = DataLoader(data[1], args.batch, num_workers=args.workers, collate_fn=collate)
    steps = math.ceil(args.epochs * len(loader)) if args.epochs else args.steps
    weights = {**LOSS_WEIGHTS, **{k: float(v) for k, v in pairs(args.loss_weights).items()}}
    slow = encoder.parameters_by_kind()["unfrozen_backbone"]
    fast = [p for p in model.parameters() if p.requires_grad and all(p is not q for q in slow)]
    rate = args.lr / 10 if args.backbone_lr is None else args.backbone_lr
    groups = [{"params": fast, "lr": args.lr}, {"params": slow, "lr": rate}]
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
    warm_up = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm_up, (steps - s) / max(1, steps - warm_up))
    )

    torch.manual_seed(args.seed)  # the same batches for every method, whatever its own draws were
    first: dict[str, float] = {}
    best, seconds, scores = -math.inf, 0.0, {}
    writer, bar = SummaryWriter(str(out)), tqdm(total=steps, desc=f"{name:<16}", unit="step")
    with (out / "log.csv").open("w", newline="") as file, writer, bar:
        log = csv.writer(file)
        log.writerow(["step", "split", "task", "metric", "value"])

        def note(step: int, split: str, entries: Mapping[str, Mapping[str, float]]) -> None:
            for task_name, metrics in entries.items():
                for metric, value in metrics.items():
                    log.writerow([step, split, task_name, metric, f"{value:.6g}"])
                    writer.add_scalar(f"{split}/{task_name}/{metric}", value, step)
            file.flush()

        for step, batch in zip(range(1, steps + 1), forever(loader), strict=False):
            start = time.perf_counter()
            model.train()
            images, losses = normalise(batch["image"], args.device), {}
            optimizer.zero_grad()
            for group in encoder.task_groups:  # path by path: T paths need the memory of one
                with torch.autocast(args.device, torch.bfloat16, enabled=args.bf16):
                    made = model(images, group)
                here = {k: known[k].loss(made[k], batch[k].to(args.device)) for k in group}
                sum(weights.get(k, 1) * value for k, value in here.items()).backward()
                losses |= {k: value.item() for k, value in here.items()}
            loss = sum(weights.get(k, 1) * value for k, value in losses.items())
            optimizer.step()
            schedule.step()
            seconds += time.perf_counter() - start
            bar.update()
            if step % 10 == 0 or step == steps:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                values = {k: {"loss": value} for k, value in losses.items()}
                lr = {"loss": loss, "lr": optimizer.param_groups[0]["lr"]}
                note(step, "train", {**values, "all": lr})
            if step % (args.eval_every or math.ceil(steps / 4)) == 0 or step == steps:
                scores = evaluate(model, known, val, args)
                note(step, "val", scores)
                now = primary(known, scores)
                first = first or now
                gain = delta_m(now, first)  # over the first validation
                if not gain <= best:
                    best = gain
                    model.save(out / "best")
    model.save(out / "last")
    draw(model, known, data[1], args).save(out / "grid.png")
    ledger = model.ledger()
    result = {
        "method": name, "primary": primary(known, scores), "scores": scores,
        "encoder": ledger.encoder, "all": ledger.total, "ledger": dataclasses.asdict(ledger),
        "seconds": round(seconds, 1), "steps": steps, "seed": args.seed, "command": sys.argv,
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
    }  # fmt: skip
    (out / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


# ---------------------------------------------------------------------------------------- what we show
def draw(
    model: DenseModel, known: Mapping[str, Task], data: Dataset[Item], args: argparse.Namespace
) -> Image.Image:
    """Lay out image, then truth and prediction a task, a row an example spread over the data."""
    size: int = len(data)  # type: ignore[arg-type]
    count = min(args.pictures, size)
    batch = collate([data[index * size // count] for index in range(count)])
    made = predict(model, batch["image"], args)
    rows = []
    for index, image in enumerate(batch["image"]):
        cells = [(image.movedim(0, -1) * 255).byte()]
        for name, each in known.items():
            cells.append(each.draw_target(batch[name][index]))
            cells.append(each.draw_prediction(made[name][index]))
        rows.append(
            torch.cat([nn.functional.pad(c, (0, 0, 0, 4, 0, 4), value=255) for c in cells], 1)
        )
    pixels, top = torch.cat(rows), 14
    sheet = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + top), "white")
    sheet.paste(Image.fromarray(pixels.numpy()), (0, top))
    titles = ["image", *(f"{name} {kind}" for name in known for kind in ("truth", "found"))]
    for index, title in enumerate(titles):
        ImageDraw.Draw(sheet).text((index * pixels.shape[1] // len(titles) + 1, 1), title, "black")
    return sheet


def table(results: Sequence[Item], known: Mapping[str, Task]) -> str:
    """Compare methods; Delta is the mean relative gain over decoders_only, else the first."""
    reference = next((r for r in results if r["method"] == "decoders_only"), results[0])
    arrows = {name: "↑" if known[name].higher_is_better else "↓" for name in known}
    head = ["method", *(f"{n} {known[n].metric}{arrows[n]}" for n in known)]
    rows = [[*head, "Delta %", "encoder", "all", "seconds"]]
    for result in results:
        delta = delta_m(result["primary"], reference["primary"])
        counts = [f"{result[key]:,}" for key in ("encoder", "all")]
        scores = [f"{result['primary'][name]:.2f}" for name in known]
        rows.append(
            [result["method"], *scores, f"{delta:+.2f}", *counts, f"{result['seconds']:.0f}"]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            c.rjust(w) if i else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, f"Delta: mean relative gain over {reference['method']}"])


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Split KEY=VALUE words."""
    bad = [word for word in words if "=" not in word]
    if bad:
        raise DataError(f"{bad[0]!r} isn't KEY=VALUE.")
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def main(argv: Sequence[str] | None = None) -> list[Item]:
    args = parse(argv)
    hypers: dict[str, Item] = {name: {} for name in args.method.split(",")}
    for key, text in pairs(args.hyper).items():
        owner, _, short = key.rpartition(".")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        for name in hypers:
            if owner in ("", name):
                hypers[name][short] = value
    for name, hyper in hypers.items():
        find_method(name, **hyper)  # a wrong name fails now, not after an hour
    torch.manual_seed(args.seed)
    net = make_backbone(args)
    known, *data = make_data(args)
    results = [train(name, hyper, net, known, tuple(data), args) for name, hyper in hypers.items()]  # type: ignore[arg-type]
    print(f"\n{table(results, known)}\nlogs, checkpoints and pictures: {args.out}")
    return results


if __name__ == "__main__":
    try:
        main()
    except PeftDenseError as error:
        sys.exit(f"error: {error}")
