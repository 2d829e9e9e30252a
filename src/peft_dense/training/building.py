"""Build what a `Setup` names: tasks and data, the backbone with its weights, the model."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
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
from peft_dense.predicting import to_size
from peft_dense.tasks import Task, tasks
from peft_dense.training.recipe import Recipe
from peft_dense.training.setup import DEMO_BACKBONE, Setup

__all__ = [
    "build_backbone",
    "check_setup",
    "load_weights",
    "make_backbone",
    "make_data",
    "make_model",
    "named_methods",
    "pairs",
]

# Of the demo's backbone; examples/pretrain_demo.py pretrains it.
_DEMO_ARGUMENTS = {
    "img_size": (128, 160),
    "window_size": 4,
    "embed_dim": 32,
    "depths": (2, 2, 2, 2),
    "num_heads": (2, 4, 8, 16),
    "num_classes": 0,
}


# ---------------------------------------------------------------------- data


def make_data(setup: Setup, recipe: Recipe) -> tuple[dict[str, Task], Any, Any]:
    """Give the tasks, and what to train and to validate on.

    Args:
        setup: Which data, tasks and size.
        recipe: Its seed counts for made scenes.

    Raises:
        UnknownNameError: ``protocol`` is set, and the data isn't PASCAL-Context's archive.
        DataError: There is no such data, or it lacks a task.

    Example:
        >>> setup = Setup(image_size=(64, 64), scenes=(2, 1))
        >>> known, train, val = make_data(setup, Recipe())
        >>> len(train), len(val), "depth" in known
        (2, 1, True)
    """
    names, kinds = data.parse_tasks(setup.tasks) if setup.tasks else (None, {})
    transforms = {
        "train": data.augmentation(
            setup.image_size,
            scale=setup.scale,
            rotation=setup.rotation,
            colour=setup.colour,
            as_bytes=True,
        ),
        "val": to_size(setup.image_size),
    }
    of_pascal = setup.own_data and data.find_place(setup.data).layout == "pascal"
    if setup.protocol != "atrc" and not of_pascal:
        raise UnknownNameError(f"--protocol {setup.protocol} is for PASCAL-Context's archive only.")
    sets: dict[str, Any] = {}
    known: dict[str, Task] = {}
    for number, split in enumerate(transforms):
        examples: Any
        if setup.own_data:
            how: dict[str, Any] = {"protocol": setup.protocol, "kinds": kinds}
            examples = data.open_data(setup.data, split, names, **how)
        else:
            which: dict[str, Any] = {"tasks": names or tasks(), "look": "demo"}
            which["seed"] = 2 * recipe.seed + number
            examples = data.Scenes(setup.scenes[number], setup.image_size, **which)
        known = known or data.tasks_of(examples)
        if setup.cache and not recipe.skip_bad:
            items = tqdm(
                (examples[index] for index in range(len(examples))),
                f"reading {split}",
                len(examples),
                leave=False,
            )
            examples = data.Cached(items, budget=setup.cache * 1_000_000, source=examples)
        examples.transform = transforms[split]
        sets[split] = examples
    return known, sets["train"], sets["val"]


# ---------------------------------------------------------------------- the backbone


def make_backbone(setup: Setup) -> nn.Module:
    """Build the backbone to be trained on, with its weights and its window.

    Args:
        setup: Which backbone, weights and size.

    Raises:
        CheckpointError: The weights are another backbone's, can't be read or can't be downloaded.
        DataError: There is no such data.
        HyperparameterError: On data of your own it would have random weights, and
            ``pretrained=False`` isn't given.
        UnsupportedModelError: It can't be built so, or has no such weights or window.

    Example:
        >>> type(make_backbone(Setup(backbone="pvt_v2_b0", pretrained=False))).__name__
        'PyramidVisionTransformerV2'
    """
    check_setup(setup)
    return build_backbone(setup)


def build_backbone(setup: Setup) -> nn.Module:
    """Build the backbone of a run; the data needn't be there.

    Raises:
        CheckpointError: The weights are another backbone's, can't be read or can't be downloaded.
        UnsupportedModelError: It can't be built so, or has no such weights or window.
    """
    options = setup.backbone_args
    if options is None:
        options = _DEMO_ARGUMENTS if setup.backbone == DEMO_BACKBONE else {}
    if setup.drop_path is not None:
        options = {**options, "drop_path_rate": setup.drop_path}
    net: Any = (_download if setup.pretrained else build)(setup.backbone, options)
    if setup.weights:
        missing = load_weights(net, setup.weights)
        if missing:
            warnings.warn(
                f"{setup.weights} lacks {len(missing)} of the backbone's parameters, which stay at "
                f"random: {', '.join(missing[:5])}.",
                stacklevel=2,
            )
    if setup.window:
        if not hasattr(net, "set_input_size"):
            raise UnsupportedModelError(f"{setup.backbone} has no set_input_size for --window.")
        with warnings.catch_warnings():
            # timm's resampling of tables makes torch warn of what a user can't mend.
            warnings.filterwarnings("ignore", module=r"timm\.layers")
            net.set_input_size(img_size=tuple(setup.image_size), window_size=setup.window)
    return net  # type: ignore[no-any-return]


def check_setup(setup: Setup) -> None:
    """Check that the data are there, and that the backbone's weights were chosen.

    A frozen backbone of random weights trains, and looks as if it worked.

    Raises:
        DataError: There is no such data.
        HyperparameterError: No weights were chosen.
        UnsupportedModelError: The backbone has no weights to download.
    """
    if setup.own_data:
        data.find_place(setup.data)
    if setup.pretrained and ":" in setup.backbone:
        raise UnsupportedModelError(
            f"--pretrained downloads timm's weights, and {setup.backbone} is no name of timm's; "
            "pass --weights FILE, or a name."
        )
    if setup.own_data and setup.pretrained is None and not setup.weights:
        raise HyperparameterError(
            f"the backbone {setup.backbone} would have random weights, which methods freeze. Pass "
            "--pretrained with a timm model's name as --backbone, or --weights FILE; "
            "--no-pretrained if random weights are what you want."
        )


def _download(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a timm model with the weights that timm names for it."""
    if not timm.is_model(name):
        return build(name, {})  # which says what is wrong with the name
    if not timm.is_model_pretrained(name):
        raise UnsupportedModelError(
            f"timm has no weights for {name}; pass --weights FILE, or another model."
        )
    build(name, options)  # what is wrong with the arguments isn't the network's fault
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns at every retry; the error below says it once
    try:
        return timm.create_model(name, pretrained=True, **options)
    except Exception as error:  # the hub's, its client's, the network's: no common base
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"the weights of {name} can't be downloaded ({type(error).__name__}: {reason}). "
            "Without a network pass --weights FILE, a safetensors file fetched elsewhere."
        ) from error
    finally:
        logger.setLevel(level)


def load_weights(net: nn.Module, path: Path) -> list[str]:
    """Load what fits, refuse another backbone's file, and give the names that it lacks.

    Raises:
        CheckpointError: The file can't be read, or has less than half of the parameters.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {path} with weights; pass a safetensors file.")
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} can't be read as safetensors ({error}); pass a whole safetensors file."
        ) from error
    own = net.state_dict()
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


# ---------------------------------------------------------------------- the model


def make_model(
    setup: Setup,
    net: nn.Module,
    method: str,
    hyper: Mapping[str, Any],
    known: Mapping[str, Task],
    seed: int,
) -> DenseModel:
    """Adapt the backbone by a method and add heads; what starts at random starts from the seed.

    Args:
        setup: Which head, and its width.
        net: The backbone.
        method: The method's name.
        hyper: Its hyper-parameters.
        known: The tasks by name.
        seed: Of what starts at random.

    Raises:
        HyperparameterError: A hyper-parameter doesn't fit the backbone.
        UnknownNameError: No such method, hyper-parameter or head.
        UnsupportedModelError: The method can't be put on the backbone.

    Example:
        >>> from peft_dense.tasks import task
        >>> setup = Setup(backbone="pvt_v2_b0", pretrained=False)
        >>> net = make_backbone(setup)
        >>> make_model(setup, net, "lora", {"rank": 2}, {"depth": task("depth")}, seed=0).tasks
        ('depth',)
    """
    torch.manual_seed(seed)
    encoder = inject(net, method, tasks=tuple(known), **hyper)
    channels = {name: each.channels for name, each in known.items()}
    has_width = "width" in signature(find_head(setup.head)).parameters
    options = {"width": setup.head_width} if has_width else {}
    return DenseModel(encoder, channels, setup.head, **options)


def named_methods(setup: Setup) -> dict[str, tuple[str, dict[str, Any]]]:
    """Give method and hyper-parameters of every run, by its label.

    Raises:
        UnknownNameError: A method or hyper-parameter doesn't exist.
        HyperparameterError: A value isn't allowed.
    """
    if setup.method == "papers":
        runs = {row.label: (row.method, dict(row.options)) for row in papers.ROWS}
    else:
        names = methods() if setup.method == "all" else setup.method.split(",")
        runs = {name: (name, {}) for name in names}
    owners = {name for name, _ in runs.values()}
    for key, text in pairs(setup.hyper):
        owner, _, short = key.rpartition(".")
        if owner and owner not in owners:
            raise UnknownNameError.of("method in --hyper", owner, owners)
        for name, hyper in runs.values():
            if owner in ("", name):
                hyper[short] = _literal(text)
    for name, hyper in runs.values():
        find_method(name, **hyper)  # a wrong name fails now, not after an hour
    return runs


def pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Split words at their first ``=``.

    Raises:
        DataError: A word has none.
    """
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
