"""The optimizer of a model: its groups, and their rates by a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import Parameter

from peft_dense.dense import DenseModel
from peft_dense.errors import warn
from peft_dense.training.recipe import Recipe

__all__ = ["make_optimizer", "set_rates"]


def make_optimizer(model: DenseModel, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimizer of all that trains; each group keeps its peak rate as ``peak``.

    There is one group of heads and output norms, one of what the method adds and one of unfrozen
    parameters of the backbone; without ``recipe.decay_vectors`` each is split in two, one of them
    without weight decay. The fused kernel is used where the parameters' device has one.

    Hypernetworks have no weight decay under Adam, which adds it to the gradient: their weights are
    large and their gradients small, so it would be all that moves them.
    """
    spared = _spared(model) if recipe.optimizer == "adam" else set()
    kinds = model.encoder.parameters_by_kind()
    heads = [*model.norms.parameters(), *model.heads.parameters()]
    groups = (
        (heads, None),
        (kinds["shared"] + kinds["per_task"], recipe.adapter_lr),
        (kinds["unfrozen_backbone"], recipe.backbone_lr),
    )
    given: Any = []
    for parameters, rate in groups:
        peak = recipe.lr if rate is None else rate
        _warn_of_rate(model, parameters, peak)
        decayed = [
            p for p in parameters if id(p) not in spared and (recipe.decay_vectors or p.ndim > 1)
        ]
        ids = {id(p) for p in decayed}
        rest = [p for p in parameters if id(p) not in ids]
        for some, decay in ((decayed, recipe.weight_decay), (rest, 0.0)):
            if some:
                given.append({"params": some, "lr": peak, "peak": peak, "weight_decay": decay})
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    if recipe.fused:
        try:
            return kind([dict(group) for group in given], fused=True)
        except RuntimeError:  # this device has no such kernel
            pass
    return kind(given)


def _warn_of_rate(model: DenseModel, parameters: list[Parameter], rate: float) -> None:
    """Warn of a rate above the ``highest_rate`` of a module of the group."""
    ids = {id(parameter) for parameter in parameters}
    for module in model.modules():
        highest = getattr(module, "highest_rate", None)
        if (
            isinstance(highest, float)
            and rate > highest
            and any(id(parameter) in ids for parameter in module.parameters())
        ):
            warn(
                f"a peak rate of {rate:g} for {type(module).__name__} turns the codes that its "
                "generators read so far in a step that the weights are made anew, not trained. "
                f"Take {highest:g} or less for what the method adds: adapter_lr, or lr."
            )


def _spared(model: DenseModel) -> set[int]:
    """Give the ids of the parameters of modules that say ``l2_decay = False``."""
    return {
        id(parameter)
        for module in model.modules()
        if getattr(module, "l2_decay", True) is False
        for parameter in module.parameters()
    }


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set every group's learning rate to ``factor`` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]
