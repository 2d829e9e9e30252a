"""transformers' Swin and Swin v2 list their maps as they are after the next merging.

So the map of each stage is asked for as its blocks left it. Swin's blocks also shrink their windows
for good when a small image comes by; they are put back before each run.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family

__all__: list[str] = []


def _maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    inner: Any = model
    tokens, size = inner.embeddings(x)
    output = inner.encoder(
        tokens,
        size,
        output_hidden_states=True,
        output_hidden_states_before_downsampling=True,
    )
    return list(output.reshaped_hidden_states[1:])


def _swin_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    inner: Any = model
    window = inner.config.window_size
    for stage in inner.encoder.layers:
        for index, block in enumerate(stage.blocks):
            block.window_size, block.shift_size = window, window // 2 if index % 2 else 0
    return _maps(model, x)


for _name, _features in (
    ("swin.modeling_swin.SwinModel", _swin_maps),
    ("swinv2.modeling_swinv2.Swinv2Model", _maps),
):
    register_family(f"transformers.models.{_name}", Family(features=_features))
