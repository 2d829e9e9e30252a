"""torchvision's Swin returns class scores; stages and mergings alternate in ``features``."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.swin_transformer import SwinTransformer

from peft_dense.backbones.families.base import Family, register_family

__all__ = ["odd_entries"]


def odd_entries(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Run ``model.features`` and return the outputs of its odd entries, the stages."""
    outputs = []
    for index, layer in enumerate(model.features):  # type: ignore[arg-type]
        x = layer(x)
        if index % 2:
            outputs.append(x)
    return outputs


register_family(SwinTransformer, Family(features=odd_entries))
