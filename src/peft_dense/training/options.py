"""Command-line options of training scripts, and what they make: data, tasks, backbone, model."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import nn
from tqdm import tqdm

from peft_dense import data, papers
from peft_dense.counting import build
from peft_dense.dense import DenseModel
from peft_dense.errors import (
    CheckpointError,
    DataError,
    HyperparameterError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.heads import head as find_head
from peft_dense.injection import inject
from peft_dense.methods import method as find_method
from peft_dense.methods import methods
from peft_dense.tasks import Task, task, tasks
from peft_dense.training.recipe import Recipe

__all__ = [
    "Args",
    "add_options",
    "load_weights",
    "make_backbone",
    "make_data",
    "make_model",
    "make_recipe",
    "named_methods",
]

Args = argparse.Namespace

# With neither --backbone nor --weights: a Swin small enough for two CPU cores, at random.
DEMO_BACKBONE = "timm.models.swin_transformer:SwinTransformer"
DEMO_ARGS = """{"img_size": [96, 128], "window_size": 4, "embed_dim": 48, "depths": [2, 2, 2, 2],
    "num_heads": [2, 4, 8, 16]}"""


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Give a script every option of data, model, recipe and place.

    Args:
        parser: Takes them.
        defaults: The script's own, by option.
    """
    add = parser.add_argument_group("data").add_argument
    add("--data", help="'made', or the folder of PASCAL_MT, NYUD_MT or a DenseFolder")
    add("--tasks", help="with commas between, where they aren't the data's own")
    size = "height and width in pixels that images are trained and scored at"
    add("--image-size", type=int, nargs=2, metavar=("H", "W"), help=size)
    add("--scale", type=float, nargs=2, help="smallest and largest zoom of random crops")
    add("--rotation", type=float, help="largest random rotation, in degrees")
    add("--colour", type=float, help="strength of random colour changes")
    add("--protocol", help="of PASCAL-Context's padding: atrc (ignored) or astmt (background)")
    add("--scenes", type=int, nargs=2, help="made scenes: train, val")
    add("--cache", type=int, help="keep data sets of up to so many images in memory")
    add = parser.add_argument_group("model").add_argument
    add("--method", help="names with commas between; all; or papers: every row of their tables")
    add("--hyper", nargs="*", metavar="[METHOD.]KEY=VALUE", help="its hyper-parameters")
    add("--backbone", help="a timm model's name, or module:Class")
    add("--backbone-args", type=json.loads, help="its keyword arguments, as JSON")
    download = argparse.BooleanOptionalAction
    add("--pretrained", action=download, help="download the timm model's weights")
    add("--weights", type=Path, help="a safetensors file for the backbone")
    add("--window", type=int, help="call the backbone's set_input_size with this window")
    add(
        "--drop-path",
        type=float,
        help="largest rate of stochastic depth, where it isn't the backbone's own",
    )
    add("--head", help="segformer or hrnet")
    add("--head-width", type=int, help="width of the heads; the papers' counts have 256")
    parser.set_defaults(
        data="made",
        tasks=None,
        image_size=(96, 128),
        scale=(0.75, 1.25),
        rotation=0.0,
        colour=0.0,
        protocol="atrc",
        scenes=(320, 64),
        cache=1000,
        method="vmt_lite",
        hyper=[],
        backbone=DEMO_BACKBONE,
        window=None,
        drop_path=None,
        head="segformer",
        head_width=64,
    )
    add = parser.add_argument_group("where").add_argument
    add("--out", type=Path, default=Path("runs"), help="a folder a method goes here")
    add("--cpu", action="store_true", help="even where there is a GPU")
    group = parser.add_argument_group("training")
    for field in fields(Recipe):
        _add_field(group, field.name, str(field.type), field.metadata["help"])
    standard = Recipe()
    parser.set_defaults(**{field.name: getattr(standard, field.name) for field in fields(Recipe)})
    parser.set_defaults(loss_weights=[], by_path=True)
    parser.set_defaults(**defaults)


def _add_field(group: Any, name: str, kind: str, about: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    if name == "loss_weights":
        group.add_argument(flag, nargs="*", metavar="TASK=WEIGHT", help=about)
    elif kind == "bool":
        group.add_argument(flag, action=argparse.BooleanOptionalAction, help=about)
    else:
        read = {"int": int, "float": float, "str": str}[kind.partition(" ")[0]]
        group.add_argument(flag, type=read, help=about)


def make_recipe(args: Args) -> Recipe:
    """Take the recipe out of the options."""
    values = {field.name: getattr(args, field.name) for field in fields(Recipe)}
    try:
        given = {name: float(weight) for name, weight in _pairs(args.loss_weights)}
    except ValueError as error:
        raise HyperparameterError(f"--loss-weights: {error}; expected TASK=NUMBER.") from error
    return Recipe(**{**values, "loss_weights": Recipe().loss_weights | given})  # type: ignore[operator]


def make_data(args: Args) -> tuple[dict[str, Task], Any, Any]:
    """Give the tasks, and what to train and to validate on."""
    names = args.tasks.split(",") if args.tasks else None
    size = tuple(args.image_size)
    transforms = {
        "train": data.augmentation(
            size, scale=tuple(args.scale), rotation=args.rotation, colour=args.colour
        ),
        "val": data.Resize(size),
    }
    if args.protocol != "atrc" and (args.data == "made" or data.layout_of(args.data) != "pascal"):
        raise UnknownNameError(f"--protocol {args.protocol} is of PASCAL-Context's archive only.")
    sets: dict[str, Any] = {}
    known: dict[str, Task] = {}
    for number, split in enumerate(transforms):
        examples: Any
        if args.data == "made":
            which: dict[str, Any] = {"tasks": names or tasks(), "seed": 2 * args.seed + number}
            examples = data.Scenes(args.scenes[number], size, **which)
        else:
            examples = data.open_data(args.data, split, names, protocol=args.protocol)
        known = known or {name: _task(examples, name) for name in examples.tasks}
        if len(examples) <= args.cache and not args.skip_bad:
            items = (examples[index] for index in range(len(examples)))
            examples = data.Cached(tqdm(items, f"reading {split}", len(examples), leave=False))
        examples.transform = transforms[split]
        sets[split] = examples
    for name, _ in _pairs(args.loss_weights):
        if name not in known:
            raise UnknownNameError.of("task in --loss-weights", name, known)
    return known, sets["train"], sets["val"]


def _task(examples: Any, name: str) -> Task:
    """Take the classes from the data where it names them, else what the task says by itself."""
    classes = () if name in ("sal", "edge") else examples.classes.get(name, ())  # one channel
    return task(name, channels=len(classes)) if classes else task(name)


def make_backbone(args: Args) -> nn.Module:
    """Build the backbone, with its weights and its window.

    Raises:
        CheckpointError: The weights are another backbone's.
        UnsupportedModelError: It can't be built so, or has no such weights or window.
    """
    if args.pretrained and ":" in args.backbone:
        raise UnsupportedModelError(
            f"--pretrained downloads timm's weights, and {args.backbone} is no name of timm's; "
            "pass --weights FILE, or a name."
        )
    options = args.backbone_args
    if options is None:
        options = json.loads(DEMO_ARGS) if args.backbone == DEMO_BACKBONE else {}
    if args.drop_path is not None:
        options = {**options, "drop_path_rate": args.drop_path}
    net: Any
    if args.pretrained:
        net = timm.create_model(args.backbone, pretrained=True, **options)
    else:
        net = build(args.backbone, options)
    if args.weights:
        missing = load_weights(net, args.weights)
        if missing:
            warnings.warn(
                f"{args.weights} lacks {len(missing)} of the backbone's parameters, which stay at "
                f"random: {', '.join(missing[:5])}.",
                stacklevel=2,
            )
    if args.window:
        if not hasattr(net, "set_input_size"):
            raise UnsupportedModelError(f"{args.backbone} has no set_input_size for --window.")
        net.set_input_size(img_size=tuple(args.image_size), window_size=args.window)
    return net  # type: ignore[no-any-return]


def load_weights(net: nn.Module, path: Path) -> list[str]:
    """Load what fits, refuse a file that is for another backbone; name the parameters it lacks.

    Raises:
        CheckpointError: Less than half of the parameters are there.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path} with weights; pass a safetensors file.")
    given, own = load_file(path), net.state_dict()
    fits = {k: v.float() for k, v in given.items() if k in own and v.shape == own[k].shape}
    sizes = {name: p.numel() for name, p in net.named_parameters()}
    missing = [name for name in sizes if name not in fits]
    found = sum(sizes.get(name, 0) for name in fits)
    if 2 * found < sum(sizes.values()):
        raise CheckpointError(
            f"{path} holds {found:,} of the backbone's {sum(sizes.values()):,} parameters, first "
            f"missing: {', '.join(missing[:3])}. Pass the backbone it was saved from."
        )
    net.load_state_dict(fits, strict=False)
    return missing


def make_model(
    args: Args, net: nn.Module, name: str, hyper: dict[str, Any], known: dict[str, Task]
) -> DenseModel:
    """Adapt the backbone, from the recipe's seed."""
    torch.manual_seed(args.seed)
    encoder = inject(net, name, tasks=tuple(known), **hyper)
    channels = {key: each.channels for key, each in known.items()}
    has_width = "width" in signature(find_head(args.head)).parameters
    options = {"width": args.head_width} if has_width else {}
    return DenseModel(encoder, channels, args.head, **options)


def named_methods(args: Args) -> dict[str, tuple[str, dict[str, Any]]]:
    """Give method and hyper-parameters of every run, by its label.

    Raises:
        UnknownNameError: A method or hyper-parameter doesn't exist.
        HyperparameterError: A value can't be.
    """
    if args.method == "papers":
        runs = {row.label: (row.method, dict(row.options)) for row in papers.ROWS}
    else:
        names = methods() if args.method == "all" else args.method.split(",")
        runs = {name: (name, {}) for name in names}
    owners = {name for name, _ in runs.values()}
    for key, text in _pairs(args.hyper):
        owner, _, short = key.rpartition(".")
        if owner and owner not in owners:
            raise UnknownNameError.of("method in --hyper", owner, owners)
        for name, hyper in runs.values():
            if owner in ("", name):
                hyper[short] = _literal(text)
    for name, hyper in runs.values():
        find_method(name, **hyper)  # a wrong name fails now, not after an hour
    return runs


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise DataError(f"{word!r} isn't KEY=VALUE.")
        yield key, value


def _literal(text: str) -> Any:
    """Read a number, a list, true, null; anything else is a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text
