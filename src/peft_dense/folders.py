"""Saved folders of adapted models: what is written, and what must hold before it is loaded.

Names, types and shapes are compared with a model of the same build on the ``meta`` device before
any memory is taken, so what doesn't fit is refused whole.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from peft_dense.backbones import BackboneInfo, Family, examine
from peft_dense.backbones.clone import meta
from peft_dense.errors import CheckpointError, UnknownNameError, UnsupportedModelError, warn
from peft_dense.keeping.compare import (
    changed_weights,
    check_backbone,
    check_state,
    specs,
    warn_unless_finite,
)
from peft_dense.keeping.digest import compare_weights, weights_id
from peft_dense.keeping.files import Saved, read, write
from peft_dense.keeping.schema import check_config
from peft_dense.keeping.tensors import Spec
from peft_dense.methods.base import method as find_method

if TYPE_CHECKING:
    from peft_dense.adapted import AdaptedBackbone
    from peft_dense.dense import DenseModel

__all__ = [
    "build_encoder",
    "by_part",
    "check_adapters",
    "check_trainable",
    "describe_encoder",
    "encoder_from_config",
    "load_encoder",
    "load_model",
    "save_encoder",
    "save_model",
]

Encoder = TypeVar("Encoder", bound="AdaptedBackbone")
Model = TypeVar("Model", bound="DenseModel")
Part = TypeVar("Part")
Kinds = Mapping[str, "str | Callable[..., nn.Module]"]


# ---------------------------------------------------------------------- encoders


def describe_encoder(adapted: AdaptedBackbone) -> dict[str, Any]:
    """Describe method, tasks and backbone as JSON values.

    Raises:
        UnsupportedModelError: It is a merged copy, or its frozen weights changed since inject.
    """
    adapted.check_not_merged("saved as adapters")
    if adapted.frozen_changed():
        raise UnsupportedModelError(changed_weights(adapted.info.model))
    return {
        "method": adapted.method.name,
        "hyperparameters": dataclasses.asdict(adapted.method),
        "tasks": list(adapted.tasks),
        "backbone": {
            "class": adapted.info.model,
            "parameters": {name: list(s) for name, s in adapted.info.parameters.items()},
            "weights": weights_id(_weights(adapted)),
        },
    }


def save_encoder(adapted: AdaptedBackbone, folder: str | os.PathLike[str]) -> Path:
    """Write adapters and what they belong to."""
    return write(folder, adapted.adapter_state_dict(), describe_encoder(adapted))


def load_encoder(
    cls: type[Encoder],
    folder: str | os.PathLike[str],
    backbone: nn.Module,
    family: Family | None,
) -> Encoder:
    """Put saved adapters on ``backbone``."""
    saved = read(folder)
    if "heads" in saved.config:
        raise CheckpointError(f"{folder} holds heads too; read it with DenseModel.load.")
    info = _examine(saved.config, backbone, family)
    with torch.device("meta"):
        check_adapters(build_encoder(cls, saved.config, meta(backbone), info), saved.specs)
    state = saved.tensors()
    adapted = build_encoder(cls, saved.config, backbone, info)
    adapted.load_adapter_state_dict(state)
    _warn_of_other_weights(adapted, saved.config)
    warn_unless_finite(adapted.adapter_state_dict())
    return adapted


def encoder_from_config(
    cls: type[Encoder], config: Mapping[str, Any], backbone: nn.Module, family: Family | None
) -> Encoder:
    """Build what :func:`describe_encoder` described, with fresh adapters."""
    check_config(config, "the configuration")
    adapted = build_encoder(cls, config, backbone, _examine(config, backbone, family))
    _warn_of_other_weights(adapted, config)
    return adapted


def build_encoder(
    cls: type[Encoder], config: Mapping[str, Any], backbone: nn.Module, info: BackboneInfo
) -> Encoder:
    """Build what a checked configuration says; on ``meta`` where the backbone is there."""
    try:
        chosen = find_method(config["method"], **config["hyperparameters"]).resolve(info)
        return cls(backbone, chosen, config["tasks"], info)
    except Exception as error:  # a method's own checks, or torch's where it has none
        raise CheckpointError(
            f"the saved configuration doesn't describe adapters of this {info.model}: "
            f"{error!s:.500} "
            "Save them again, or load them with the version that saved them."
        ) from error


def check_adapters(adapted: AdaptedBackbone, given: Mapping[str, Spec]) -> None:
    """Check that tensors of these types and shapes could be loaded as adapters.

    Raises:
        CheckpointError: Names, shapes or types differ; the first few are listed.
    """
    check_state(
        specs(adapted.adapter_state_dict()),
        given,
        f"these adapters don't fit {adapted.method.name} on {adapted.info.model} with tasks "
        f"{', '.join(adapted.tasks)}",
        "Inject the method they were trained with, with the same hyper-parameters and tasks.",
    )


# ---------------------------------------------------------------------- with heads


def save_model(model: DenseModel, folder: str | os.PathLike[str]) -> Path:
    """Write adapters and heads and what they belong to."""
    heads = {
        "names": model.head_names,
        "options": model.options,
        "channels": model.out_channels,
    }
    config = {**describe_encoder(model.encoder), "heads": heads}
    return write(folder, model.trainable_state_dict(), config)


def load_model(
    cls: type[Model],
    encoder: type[AdaptedBackbone],
    folder: str | os.PathLike[str],
    backbone: nn.Module,
    head: Any,
    family: Family | None,
) -> Model:
    """Put a saved model's adapters and heads on ``backbone``."""
    saved = read(folder)
    heads = saved.config.get("heads")
    if heads is None:
        raise CheckpointError(
            f"{folder} holds an encoder without heads; read it with AdaptedBackbone.load."
        )
    given = head if isinstance(head, Mapping) else dict.fromkeys(heads["names"], head)
    for task in given:
        if task not in heads["names"]:
            raise UnknownNameError.of("task with a head", task, heads["names"])
    kinds = heads["names"] | {task: kind for task, kind in given.items() if kind is not None}
    nameless = [task for task, kind in kinds.items() if kind is None]
    if nameless:
        raise CheckpointError(
            f"the heads of {', '.join(map(repr, nameless))} in {folder} were made by a "
            f"callable; pass it as head=... or head={{{nameless[0]!r}: ...}}."
        )
    info = _examine(saved.config, backbone, family)
    _check_on_meta(cls, encoder, saved, meta(backbone), info, kinds)
    state = saved.tensors()
    model = _build_model(cls, encoder, saved.config, backbone, info, kinds)
    model.load_trainable_state_dict(state)
    _warn_of_other_weights(model.encoder, saved.config)
    warn_unless_finite(model.trainable_state_dict())
    return model


def check_trainable(model: DenseModel, given: Mapping[str, Spec]) -> None:
    """Check that tensors of these types and shapes could be loaded as adapters and heads.

    Raises:
        CheckpointError: Names, shapes or types differ; the first few are listed.
    """
    parts = by_part(given)
    check_adapters(model.encoder, parts["encoder"])
    for name, part in (("norms", model.norms), ("heads", model.heads)):
        check_state(
            specs(part.state_dict()),
            parts[name],
            f"the saved {name} don't fit tasks {model.out_channels}",
            "Build the model with the heads it was saved with.",
        )


def by_part(state: Mapping[str, Part]) -> dict[str, dict[str, Part]]:
    """Sort what a dense model's state dict holds by the part it belongs to.

    Raises:
        CheckpointError: A name belongs to none.
    """
    parts: dict[str, dict[str, Part]] = {"encoder": {}, "norms": {}, "heads": {}}
    for name, value in state.items():
        kind, _, rest = name.partition(".")
        if kind not in parts:
            raise CheckpointError(
                f"{name!r:.200} is no part of a dense model; its parts are encoder, norms and "
                "heads."
            )
        parts[kind][rest] = value
    return parts


def _check_on_meta(
    cls: type[Model],
    encoder: type[AdaptedBackbone],
    saved: Saved,
    shapes: nn.Module,
    info: BackboneInfo,
    kinds: Kinds,
) -> None:
    """Compare the saved tensors with a model on ``meta``, before memory is taken."""
    with torch.device("meta"):
        adapted = build_encoder(encoder, saved.config, shapes, info)
        check_adapters(adapted, by_part(saved.specs)["encoder"])
        try:
            twin = _build_model(cls, encoder, saved.config, shapes, info, kinds)
        except CheckpointError:
            if all(isinstance(kind, str) for kind in kinds.values()):
                raise
            return  # a callable may need real tensors; its heads are compared once built
    check_trainable(twin, saved.specs)


def _build_model(
    cls: type[Model],
    encoder: type[AdaptedBackbone],
    config: Mapping[str, Any],
    backbone: nn.Module,
    info: BackboneInfo,
    kinds: Kinds,
) -> Model:
    """Build what a checked configuration says; on ``meta`` where the backbone is there."""
    adapted = build_encoder(encoder, config, backbone, info)
    heads = config["heads"]
    try:
        return cls(adapted, heads["channels"], kinds, **heads["options"])
    except Exception as error:  # a head's own checks, or torch's where it has none
        raise CheckpointError(
            f"the saved configuration doesn't describe heads that can be built: "
            f"{error!s:.500} "
            "Save the model again, or pass the callable that made them as head=..."
        ) from error


# ---------------------------------------------------------------------- the backbone


def _examine(config: Mapping[str, Any], backbone: nn.Module, family: Family | None) -> BackboneInfo:
    """Probe ``backbone``, and check that it has the parameters that a configuration names."""
    info = examine(backbone, family)
    saved = config["backbone"]
    check_backbone(saved["parameters"], info.parameters, saved["class"], info.model)
    return info


def _weights(adapted: AdaptedBackbone) -> dict[str, Tensor]:
    """The frozen weights that outputs depend on: used parameters, and buffers that are kept."""
    tensors, names = adapted.backbone_tensors(), []
    for path, module in adapted.pattern.named_modules():
        at = f"{path}." if path else ""
        own = [at + leaf for leaf, _ in module.named_parameters(recurse=False)]
        used = [name for name in own if name in adapted.info.parameters]
        names += used
        if used or not own:  # statistics belong to the weight beside them
            kept = module._buffers.keys() - module._non_persistent_buffers_set
            names += [at + leaf for leaf in module._buffers if leaf in kept]
    return {name: tensors[name] for name in names if name in tensors}


def _warn_of_other_weights(adapted: AdaptedBackbone, config: Mapping[str, Any]) -> None:
    if compare_weights(config["backbone"]["weights"], weights_id(_weights(adapted))) == "other":
        warn(
            f"the adapters were trained on other weights of {adapted.info.model} than these; load "
            "the same pretrained weights into the backbone first."
        )
