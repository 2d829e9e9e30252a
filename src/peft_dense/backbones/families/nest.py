"""timm's Nest keeps its tokens block by block: (B, blocks, tokens, C), each in raster order.

A site's tokens become a map by laying the blocks side by side.
"""

from __future__ import annotations

import math

from einops import rearrange
from timm.models.nest import Nest
from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _to_map(model: nn.Module, site: str, tokens: Tensor, x: Tensor) -> Tensor:
    blocks, size = math.isqrt(tokens.shape[1]), math.isqrt(tokens.shape[2])
    return rearrange(tokens, "b (h w) (p q) c -> b c (h p) (w q)", h=blocks, p=size)


register_family(Nest, Family(to_map=_to_map))
