"""timm's Hiera keeps its tokens mask unit by mask unit, in an order fixed to one image size.

Here the order follows the image, and so do the positions; a site's tokens become a map by rolling
them back.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.hiera import Hiera, Reroll, Unroll
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from peft_dense.backbones.families.base import Family, register_family
from peft_dense.layout import tokens_to_map

__all__: list[str] = []


def _order(model: Hiera, x: Tensor) -> tuple[Unroll, Reroll]:
    size, stride = tuple(x.shape[-2:]), model.patch_stride
    schedule = [model.q_stride] * len(model.stage_ends[:-1])
    unroll = Unroll(size, stride, schedule)
    return unroll, Reroll(size, stride, schedule, model.stage_ends, model.q_pool)


def _position(model: Hiera, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Add the position embedding, resampled where the image isn't of the native size."""
    position, window = model.pos_embed, model.pos_embed_win
    if position is None or grid == tuple(model.tokens_spatial_shape):
        native: Tensor = model._pos_embed(tokens)
        return native
    native_grid = model.tokens_spatial_shape
    coarse: Tensor = position if window is not None else tokens_to_map(position, *native_grid)
    resized = F.interpolate(coarse, size=grid, mode="bicubic", antialias=True)
    if window is not None:
        repeats = [size // unit for size, unit in zip(grid, window.shape[-2:], strict=True)]
        resized = resized + window.tile(repeats)
    return tokens + resized.flatten(2).mT


def _features(model: nn.Module, x: Tensor) -> list[Tensor]:
    assert isinstance(model, Hiera)
    unroll, reroll = _order(model, x)
    tokens = model.patch_embed(x, mask=None)
    tokens = unroll(_position(model, tokens, (unroll.size[0], unroll.size[1])))
    outputs = []
    for index, block in enumerate(model.blocks):
        if model.grad_checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, use_reentrant=False)
        else:
            tokens = block(tokens)
        if index in model.stage_ends:
            outputs.append(reroll(tokens, index).permute(0, 3, 1, 2))
    return outputs


def _to_map(model: nn.Module, site: str, tokens: Tensor, x: Tensor) -> Tensor:
    assert isinstance(model, Hiera)
    block = int(site.split(".")[1])
    rolled: Tensor = _order(model, x)[1](tokens, block)
    return rolled.permute(0, 3, 1, 2)


register_family(Hiera, Family(features=_features, to_map=_to_map))
