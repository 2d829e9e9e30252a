"""The optimizer of a model: groups by what they are, and the rates a recipe gives them."""

from __future__ import annotations

from typing import Any

import torch

from peft_dense.dense import DenseModel
from peft_dense.training.recipe import Recipe

__all__ = ["make_optimizer", "set_rates"]


def make_optimizer(model: DenseModel, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer of all that trains; each group keeps its peak rate as ``peak``."""
    kinds = model.encoder.parameters_by_kind()
    heads = [*model.norms.parameters(), *model.heads.parameters()]
    groups = (
        (heads, None),
        (kinds["shared"] + kinds["per_task"], recipe.adapter_lr),
        (kinds["unfrozen_backbone"], recipe.backbone_lr),
    )
    given: Any = [
        {"params": parameters, "lr": peak, "peak": peak}
        for parameters, rate in groups
        for peak in [recipe.lr if rate is None else rate]
        if parameters
    ]
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(given, weight_decay=recipe.weight_decay)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
