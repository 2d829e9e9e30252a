"""Train heads and adapters on your images or on scenes this script makes, and compare methods.

    python examples/train.py --method decoders_only,vmt_lite --data made --out runs/demo
    python examples/train.py --method vmt_lite --data FOLDER --backbone swin_tiny_patch4_window7_224 \
        --pretrained --image-size 224 224

A FOLDER has the layout of ``peft_dense.data.DenseFolder``: ``{train,val}.txt``, ``images/`` and one
folder a task. Methods run one after another with the same seed, data order and budget.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from peft_dense import DenseModel, inject
from peft_dense.data import Compose, DenseFolder, RandomFlip, RandomScaleCrop, Resize, Scenes
from peft_dense.data import available_tasks, collate
from peft_dense.tasks import Task, delta_m, task

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
LOSS_WEIGHTS = {"semseg": 1.0, "human_parts": 2.0, "sal": 5.0, "normals": 10.0, "edge": 5.0}
SMALL_SWIN = {
    "patch_size": 4,
    "window_size": 4,
    "embed_dim": 48,
    "depths": (2, 2, 2, 2),
    "num_heads": (2, 4, 8, 16),
    "num_classes": 0,
}


@dataclass
class Options:
    """What the command line sets; the defaults are the demo's."""

    method: str = "decoders_only,shared_adapter,vmt_lite"
    data: str = "made"
    tasks: str = ""
    backbone: str = "timm.models.swin_transformer:SwinTransformer"
    backbone_args: str = ""
    weights: str = ""
    pretrained: bool = False
    image_size: tuple[int, int] = (96, 128)
    window: int = 0
    hyper: list[str] = field(default_factory=list)
    head_width: int = 64
    steps: int = 150
    batch: int = 8
    lr: float = 1e-3
    backbone_lr: float = 1e-4
    weight_decay: float = 1e-4
    loss_weights: str = ""
    scenes: int = 240
    evaluate_every: int = 0
    seed: int = 0
    threads: int = 0
    bf16: bool = False
    out: str = "runs/train"


HELP = {
    "method": "names of methods, separated by commas; they run one after another",
    "data": "'made', or a folder in DenseFolder's layout",
    "tasks": "names of tasks, separated by commas; default: all that the data has",
    "backbone": "a timm model name, or module:Class",
    "backbone_args": "JSON of the class's arguments",
    "weights": "safetensors file of the backbone's weights",
    "pretrained": "load timm's pretrained weights (needs a network)",
    "image_size": "height and width for training and evaluation",
    "window": "call the backbone's set_input_size with this window size",
    "hyper": "hyper-parameter of the method, NAME=VALUE, repeatable",
    "lr": "Adam's peak learning rate for adapters and heads; falls linearly to zero",
    "backbone_lr": "the same for unfrozen backbone parameters",
    "loss_weights": "TASK=WEIGHT,...; default: MTLoRA's 1, 2, 5, 10, and 5 for edge",
    "scenes": "number of made scenes to train on",
    "evaluate_every": "steps between evaluations; 0: a quarter of the run",
    "threads": "CPU threads; 0: torch's choice",
    "bf16": "autocast to bfloat16",
}


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in asdict(Options()).items():
        how: dict[str, Any] = {"default": default, "help": HELP.get(name, "")}
        if isinstance(default, bool):
            how["action"] = "store_true"
        elif isinstance(default, tuple):
            how |= {"type": int, "nargs": 2}
        elif isinstance(default, list):
            how["action"] = "append"
        else:
            how["type"] = type(default)
        parser.add_argument("--" + name.replace("_", "-"), **how)
    return Options(**vars(parser.parse_args(arguments)))


class InMemory(Dataset[dict[str, Any]]):
    """Keep every item of a data set, and transform a copy on each access."""

    def __init__(self, source: Any, transform: Any, note: str) -> None:
        self.items = [source[i] for i in tqdm(range(len(source)), desc=note, leave=False)]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item: dict[str, Any] = self.transform(dict(self.items[index]))
        return item


def make_data(o: Options) -> tuple[InMemory, InMemory, dict[str, Task]]:
    """Load both splits, and settle the tasks with their channels."""
    augment = Compose(RandomScaleCrop(o.image_size), RandomFlip())
    plain = Resize(o.image_size)
    if o.data == "made":
        names = tuple(o.tasks.split(",")) if o.tasks else tuple(Scenes(1).channels)
        train = Scenes(o.scenes, o.image_size, names, seed=o.seed)
        val = Scenes(max(8, o.scenes // 6), o.image_size, names, seed=o.seed + 1)
        channels, classes = train.channels, train.classes
    else:
        names = tuple(o.tasks.split(",")) if o.tasks else tuple(available_tasks(o.data))
        train = DenseFolder(o.data, "train", names)
        val = DenseFolder(o.data, "val", names)
        classes = train.classes
        channels = {name: len(classes[name]) for name in names if name in classes}
    kinds = {}
    for name in names:
        fixed = task(name).fixed_channels
        kinds[name] = task(name) if fixed or name not in channels else task(name, channels=channels[name])
    return InMemory(train, augment, "train data"), InMemory(val, plain, "val data"), kinds


def make_backbone(o: Options) -> nn.Module:
    """Build the backbone and load its weights."""
    torch.manual_seed(o.seed)
    if ":" in o.backbone:
        module, name = o.backbone.split(":")
        given = json.loads(o.backbone_args) if o.backbone_args else {}
        if not given and name == "SwinTransformer":
            given = {**SMALL_SWIN, "img_size": o.image_size}
        net: nn.Module = getattr(importlib.import_module(module), name)(**given)
    else:
        given = json.loads(o.backbone_args) if o.backbone_args else {}
        net = timm.create_model(o.backbone, pretrained=o.pretrained, **given)
    if o.weights:
        state = {key: value.float() for key, value in load_file(o.weights).items()}
        missing, unknown = net.load_state_dict(state, strict=False)
        wanted = {name for name, _ in net.named_parameters()}
        if unknown or wanted.intersection(missing):
            raise SystemExit(f"{o.weights} lacks {sorted(wanted & set(missing))[:5]}, adds {unknown[:5]}")
    if o.window:
        net.set_input_size(tuple(o.image_size), window_size=o.window)  # type: ignore[operator]
    return net


def batches(loader: DataLoader[Any], steps: int) -> Iterator[dict[str, Any]]:
    """Go round the loader until there have been ``steps`` batches."""
    done = 0
    while done < steps:
        for batch in loader:
            if done < steps:
                yield batch
            done += 1


def normalise(images: Tensor) -> Tensor:
    """Shift and scale RGB in 0..1 as ImageNet's models expect."""
    return (images - MEAN.to(images)[:, None, None]) / STD.to(images)[:, None, None]


@torch.no_grad()
def evaluate(
    model: DenseModel, loader: DataLoader[Any], kinds: dict[str, Task], weights: dict[str, float]
) -> tuple[dict[str, dict[str, float]], float]:
    """Measure every task on the validation set; also the weighted loss."""
    model.eval()
    meters = {name: kind.meter() for name, kind in kinds.items()}
    total = 0.0
    for batch in loader:
        predictions = model(normalise(batch["image"]))
        for name, kind in kinds.items():
            meters[name].update(predictions[name], batch[name])
            total += weights[name] * float(kind.loss(predictions[name], batch[name]))
    model.train()
    return {name: meter.compute() for name, meter in meters.items()}, total / len(loader)


def draw(model: DenseModel, items: list[dict[str, Any]], kinds: dict[str, Task], path: Path) -> None:
    """Save a grid: one row a picture, truth and prediction of every task side by side."""
    model.eval()
    with torch.no_grad():
        predictions = model(normalise(torch.stack([item["image"] for item in items])))
    height, width = items[0]["image"].shape[-2:]
    columns = ["image"] + [f"{name} {kind}" for name in kinds for kind in ("truth", "prediction")]
    head, gap = 14, 2
    grid = Image.new("RGB", ((width + gap) * len(columns), head + (height + gap) * len(items)), "white")
    pen = ImageDraw.Draw(grid)
    for row, item in enumerate(items):
        tiles = [(item["image"].movedim(0, -1) * 255).round().byte()]
        for name, kind in kinds.items():
            tiles += [kind.draw_target(item[name]), kind.draw_prediction(predictions[name][row])]
        for column, tile in enumerate(tiles):
            where = (column * (width + gap), head + row * (height + gap))
            grid.paste(Image.fromarray(tile.numpy()), where)
    for column, title in enumerate(columns):
        pen.text((column * (width + gap) + 2, 1), title, fill="black")
    grid.save(path)


def run(o: Options, name: str, train: InMemory, val: InMemory, kinds: dict[str, Task]) -> dict[str, Any]:
    """Train one method and return its results."""
    from torch.utils.tensorboard import SummaryWriter

    out = Path(o.out) / name
    out.mkdir(parents=True, exist_ok=True)
    hyper = {}
    for pair in o.hyper:
        key, _, value = pair.partition("=")
        hyper[key] = json.loads(value)
    encoder = inject(make_backbone(o), name, tasks=tuple(kinds), **hyper)
    torch.manual_seed(o.seed)
    model = DenseModel(encoder, {t: k.channels for t, k in kinds.items()}, width=o.head_width)
    weights = {t: LOSS_WEIGHTS.get(t, 1.0) for t in kinds}
    weights |= {k: float(v) for k, _, v in (p.partition("=") for p in o.loss_weights.split(",") if p)}
    groups = encoder.parameters_by_kind()
    slow = groups.pop("unfrozen_backbone")
    fast = [p for members in groups.values() for p in members]
    fast += [p for part in (model.norms, model.heads) for p in part.parameters()]
    optimiser = torch.optim.AdamW(
        [{"params": fast, "lr": o.lr}, {"params": slow, "lr": o.backbone_lr}], weight_decay=o.weight_decay
    )
    warm = max(1, o.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / warm, (o.steps - i) / o.steps)
    )
    order = torch.Generator().manual_seed(o.seed)
    loader = DataLoader(train, o.batch, shuffle=True, drop_last=True, collate_fn=collate, generator=order)
    val_loader = DataLoader(val, o.batch, collate_fn=collate)
    every = o.evaluate_every or max(1, o.steps // 4)
    best, metrics, began, spent = float("inf"), {}, time.perf_counter(), 0.0
    writer = SummaryWriter(str(out))
    with (out / "log.csv").open("w", newline="") as file:
        log = csv.writer(file)
        log.writerow(["step", "split", "name", "value"])
        bar = tqdm(enumerate(batches(loader, o.steps), 1), total=o.steps, desc=f"{name:>16}")
        torch.manual_seed(o.seed)
        for step, batch in bar:
            started = time.perf_counter()
            images = normalise(batch["image"])
            losses: dict[str, float] = {}
            for group in encoder.task_groups:  # path by path: the memory of one path
                with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
                    predictions = model(images, group)
                parts = {t: kinds[t].loss(predictions[t], batch[t]) for t in group}
                torch.stack([weights[t] * loss for t, loss in parts.items()]).sum().backward()
                losses |= {t: float(loss) for t, loss in parts.items()}
            nn.utils.clip_grad_norm_(fast + slow, 5.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad(set_to_none=True)
            spent += time.perf_counter() - started
            bar.set_postfix({t: f"{loss:.3f}" for t, loss in losses.items()})
            for t, loss in losses.items():
                log.writerow([step, "train", t, loss])
                writer.add_scalar(f"train/{t}", loss, step)
            if step % every == 0 or step == o.steps:
                metrics, loss = evaluate(model, val_loader, kinds, weights)
                for t, measured in metrics.items():
                    for key, value in measured.items():
                        log.writerow([step, "val", f"{t}.{key}", value])
                        writer.add_scalar(f"val/{t}.{key}", value, step)
                if loss < best:
                    best = loss
                    model.save(out / "best")
    writer.close()
    model.save(out / "last")
    draw(model, [val[i] for i in range(min(4, len(val)))], kinds, out / "grid.png")
    ledger = model.ledger()
    result = {
        "method": name,
        "metrics": metrics,
        "encoder": ledger.encoder,
        "all": ledger.total,
        "passes": ledger.passes,
        "seconds": time.perf_counter() - began,
        "train_seconds": spent,
        "options": asdict(o),
    }
    (out / "results.json").write_text(json.dumps(result, indent=1))
    return result


def table(results: list[dict[str, Any]], kinds: dict[str, Task]) -> str:
    """Lay the results out, with Delta against decoders_only, or else the first method."""
    primary = [{t: r["metrics"][t][kinds[t].metric] for t in kinds} for r in results]
    names = [r["method"] for r in results]
    reference = names.index("decoders_only") if "decoders_only" in names else 0
    arrows = [f"{t} {kinds[t].metric}{'+' if kinds[t].higher_is_better else '-'}" for t in kinds]
    head = ["method", *arrows, f"Delta vs {names[reference]} %", "encoder", "all", "train s"]
    rows = [head]
    for result, numbers in zip(results, primary, strict=True):
        gain = delta_m(numbers, primary[reference])
        rows.append(
            [result["method"], *(f"{v:.2f}" for v in numbers.values()), f"{gain:+.2f}"]
            + [f"{result['encoder']:,}", f"{result['all']:,}", f"{result['train_seconds']:.0f}"]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([lines[0], "-+-".join("-" * w for w in widths), *lines[1:]])


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Train every method asked for, then print one table."""
    o = parse(arguments)
    if o.threads:
        torch.set_num_threads(o.threads)
    train, val, kinds = make_data(o)
    print(f"{len(train)} training and {len(val)} validation images; tasks {', '.join(kinds)}")
    results = [run(o, name, train, val, kinds) for name in o.method.split(",")]
    print(f"\n{table(results, kinds)}\n\n+ higher is better, - lower. Pictures: {o.out}/*/grid.png")
    return results


if __name__ == "__main__":
    main()
