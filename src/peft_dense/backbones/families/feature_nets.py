"""timm's ``features_only=True`` models hold the blocks of the model they were cut from.

They aren't of its class, so what lets its blocks take any size is done to them here too.
segmentation_models.pytorch's ``tu-`` encoders hold such a model.
"""

from __future__ import annotations

from timm.models._features import FeatureDictNet, FeatureHookNet
from torch import nn

from peft_dense.backbones.families.base import Family, register_family
from peft_dense.backbones.families.mvitv2 import any_size_mvitv2
from peft_dense.backbones.families.swin import any_size_swin

__all__: list[str] = []


def _any_size(model: nn.Module) -> None:
    any_size_swin(model)
    any_size_mvitv2(model)


for _kind in (
    FeatureDictNet,
    FeatureHookNet,
    "segmentation_models_pytorch.encoders.timm_universal.TimmUniversalEncoder",
):
    register_family(_kind, Family(flexible=_any_size))
