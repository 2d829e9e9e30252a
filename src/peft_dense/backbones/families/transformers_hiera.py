"""transformers' Hiera keeps its tokens mask unit by mask unit, as timm's does.

A site's tokens become a map by rolling them back, which the encoder knows how to do.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family
from peft_dense.backbones.families.transformers_backbones import all_stages

__all__: list[str] = []


def _to_map(model: nn.Module, site: str, tokens: Tensor, x: Tensor) -> Tensor:
    around, _, rest = f".{site}".partition(".stages.")
    encoder: Any = model.get_submodule(around[1:])
    rolled: Tensor = encoder.reroll(tokens, int(rest.partition(".")[0]))
    return rolled.movedim(-1, 1)


register_family("transformers.models.hiera.modeling_hiera.HieraModel", Family(to_map=_to_map))
register_family(
    "transformers.models.hiera.modeling_hiera.HieraBackbone",
    Family(to_map=_to_map, flexible=all_stages),
)
