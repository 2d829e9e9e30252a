"""Count what methods train on a backbone, from names alone.

Methods are counted on torch's ``meta`` device, where parameters have shapes and no values, so a
count takes a fraction of a second and no memory. Nothing is downloaded.
"""

from __future__ import annotations

import difflib
import inspect
import os
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import timm
import torch
from torch import nn

from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import examine
from peft_dense.backbones.clone import meta
from peft_dense.dense import DenseModel
from peft_dense.errors import HyperparameterError, UnknownNameError, UnsupportedModelError
from peft_dense.heads import head as find_head
from peft_dense.methods import method

__all__ = ["Counter", "build"]


def build(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a model with random weights from a name of timm or ``module:Class``.

    Raises:
        UnknownNameError: timm has no such model; the nearest are offered.
        UnsupportedModelError: It can't be built; the reason is given.
    """
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise UnknownNameError(
            f"unknown model {name!r}{hint} Expected a name of timm.list_models(), or module:Class."
        )
    try:
        if ":" in name:
            if os.getcwd() not in sys.path:
                sys.path.append(os.getcwd())  # so that a class in the user's folder is found
            model: nn.Module = pkgutil.resolve_name(name)(**options)
        else:
            model = timm.create_model(name, pretrained=False, **options)
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} with arguments {dict(options)} can't be built: {error!r}. Check the name, and "
            "give arguments as --backbone-args '{\"name\": value}'."
        ) from error
    return model


class Counter:
    """Count methods on one backbone, which is probed once.

    Args:
        model: The backbone; it isn't touched.
        channels: Output channels of the head of each task.
        head: Name of the head.
        width: Its width, or None for its own default.

    Raises:
        PeftDenseError: The backbone can't be adapted, or the heads can't be built.

    Example:
        >>> counter = Counter(build("pvt_v2_b0", {}), {"semseg": 21, "depth": 1})
        >>> counter.count("lora", rank=2)["next_task"]
        10240
    """

    def __init__(
        self,
        model: nn.Module,
        channels: Mapping[str, int],
        head: str = "segformer",
        width: int | None = None,
    ) -> None:
        options = {} if width is None else {"width": width}
        if width is not None and "width" not in inspect.signature(find_head(head)).parameters:
            raise HyperparameterError(f"head {head!r} has no width to set; leave it out.")
        self.info = examine(model)
        self.model, self.tasks = meta(model), tuple(channels)
        with torch.device("meta"):
            bare = AdaptedBackbone(self.model, method("decoders_only"), self.tasks, self.info)
            self.heads = DenseModel(bare, channels, head, **options).ledger().heads

    def count(self, name: str, **hyperparameters: Any) -> dict[str, Any]:
        """Build a method and read its ledger.

        ``next_task`` is what one more task adds to the encoder, without its head.

        Raises:
            PeftDenseError: The method can't go on the backbone.
        """
        chosen = method(name, **hyperparameters).resolve(self.info)
        with torch.device("meta"):
            adapted = AdaptedBackbone(self.model, chosen, self.tasks, self.info)
        ledger, now = replace(adapted.ledger(), heads=self.heads), len(self.tasks)
        return {
            "method": name,
            "hyperparameters": asdict(chosen),
            "shared": ledger.shared,
            "per_task": ledger.per_task,
            "unfrozen_backbone": ledger.unfrozen_backbone,
            "encoder": ledger.encoder,
            "heads": ledger.heads,
            "all": ledger.total,
            "percent": ledger.percent,
            "passes": ledger.passes,
            "next_task": chosen.count(self.info, now + 1) - chosen.count(self.info, now),
        }
