"""torchvision's MaxViT returns class scores, no maps; its sites see windows or grids of the map.

Attention and feed-forward part of a block are called ``attn_layer`` and ``mlp_layer``; they get the
map as (B, parts, tokens of a part, C), where a grid's parts are spread over the whole map.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torchvision.models.maxvit import MaxVit

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _features(model: nn.Module, x: Tensor) -> list[Tensor]:
    x = model.get_submodule("stem")(x)
    return [x := block(x) for block in model.get_submodule("blocks").children()]


def _to_map(model: nn.Module, site: str, tokens: Tensor, x: Tensor) -> Tensor:
    layer: Any = model.get_submodule(site.rpartition(".")[0])
    height, width = layer.grid_size
    size = layer.p
    if layer.partition_type == "grid":
        # The parts are the places within a grid's cell: first part, then cell.
        tokens = tokens.transpose(1, 2)
    return rearrange(
        tokens,
        "b (h w) (p q) c -> b c (h p) (w q)",
        h=height // size,
        w=width // size,
        p=size,
        q=size,
    )


register_family(
    MaxVit,
    Family(features=_features, to_map=_to_map, mlp=("mlp_layer",), attn=("attn_layer",)),
)
