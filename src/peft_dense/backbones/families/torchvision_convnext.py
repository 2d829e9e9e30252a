"""torchvision's ConvNeXt returns class scores, no maps; its feed-forward parts have no name.

A block keeps its whole residual branch in the Sequential ``block``, so that branch is the place of
an adapter.
"""

from __future__ import annotations

from torchvision.models.convnext import ConvNeXt

from peft_dense.backbones.families.base import Family, register_family
from peft_dense.backbones.families.torchvision_swin import odd_entries

__all__: list[str] = []


register_family(ConvNeXt, Family(features=odd_entries, mlp=("block",)))
