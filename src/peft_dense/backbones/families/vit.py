"""timm's plain ViTs and EVAs resample their position embedding only if they are told to."""

from __future__ import annotations

from timm.layers.format import Format
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _flexible_vit(model: nn.Module) -> None:
    embed = getattr(model, "patch_embed", None)
    if getattr(model, "dynamic_img_size", None) is False and hasattr(embed, "output_fmt"):
        model.dynamic_img_size = True  # type: ignore[assignment]
        embed.strict_img_size = False  # type: ignore[union-attr]
        embed.flatten = False  # type: ignore[union-attr]
        embed.output_fmt = Format.NHWC  # type: ignore[union-attr]


register_family(VisionTransformer, Family(flexible=_flexible_vit))
register_family(Eva, Family(flexible=_flexible_vit))
