"""transformers' ``...Backbone`` classes give only their last stage away, unless told otherwise.

A clone is told to give all. Where the class normalises each stage it gives, norms exist only for
the stages the model was built to give; the others go without. SwinModel and its like must be asked
for their maps as they were before the next stage's merging, and in the order of the model.

transformers is no dependency, so its classes are known by where they come from.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _all_stages(model: nn.Module) -> None:
    told: Any = model
    names = list(told.stage_names)
    for norms in (getattr(model, "hidden_states_norms", None),):
        if isinstance(norms, nn.ModuleDict):
            for name in names:
                if name not in norms:
                    norms[name] = nn.Identity()
    told.out_features = names


def _before_merging(model: nn.Module, x: Tensor) -> list[Tensor]:
    output = model(x, output_hidden_states=True, output_hidden_states_before_downsampling=True)
    return list(output.reshaped_hidden_states[1:])


register_family("transformers.backbone_utils.BackboneMixin", Family(flexible=_all_stages))
register_family("transformers.utils.backbone_utils.BackboneMixin", Family(flexible=_all_stages))
register_family(
    "transformers.models.swin.modeling_swin.SwinModel", Family(features=_before_merging)
)
