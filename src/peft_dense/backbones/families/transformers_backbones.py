"""transformers' ``...Backbone`` classes return only their last stage, unless told otherwise.

A clone of one that returns a single stage is told to return all but the stem. Where the class
normalises the stages it returns, it has norms only for those it was built to return; the others go
without.

transformers is no dependency, so its classes are known by their names.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from peft_dense.backbones.families.base import Family, register_family

__all__ = ["all_stages"]


def all_stages(model: nn.Module) -> None:
    """Let a clone that returns one stage return all."""
    told: Any = model
    if len(told.out_features) > 1:
        return
    names = [name for name in told.stage_names if name != "stem"]
    norms = getattr(model, "hidden_states_norms", None)
    if isinstance(norms, nn.ModuleDict):
        for name in names:
            if name not in norms:
                norms[name] = nn.Identity()
    told.out_features = names


for _home in ("transformers.backbone_utils", "transformers.utils.backbone_utils"):
    register_family(f"{_home}.BackboneMixin", Family(flexible=all_stages))
