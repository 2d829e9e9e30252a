"""transformers' Swin and Swin v2 list their maps as they are after the next merging.

So the map of each stage is asked for as its blocks left it. Swin's blocks also shrink their windows
for good when a small image comes by, and then fail on it; here windows keep their size, and a map
that fits in one window isn't shifted.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _maps(model: nn.Module, x: Tensor, **keywords: bool) -> list[Tensor]:
    inner: Any = model
    tokens, size = inner.embeddings(x)
    output = inner.encoder(
        tokens,
        size,
        output_hidden_states=True,
        output_hidden_states_before_downsampling=True,
        **keywords,
    )
    return list(output.reshaped_hidden_states[1:])


def _swin_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    inner: Any = model
    window, patch = inner.config.window_size, inner.config.patch_size
    sides = [-(-side // patch) for side in x.shape[-2:]]
    for stage in inner.encoder.layers:
        shift = window // 2 if min(sides) > window else 0
        for index, block in enumerate(stage.blocks):
            block.window_size, block.shift_size = window, shift if index % 2 else 0
        sides = [(side + 1) // 2 for side in sides]
    return _maps(model, x, always_partition=True)


for _name, _features in (
    ("swin.modeling_swin.SwinModel", _swin_maps),
    ("swinv2.modeling_swinv2.Swinv2Model", _maps),
):
    register_family(f"transformers.models.{_name}", Family(features=_features))
