"""What the probe can't see of a backbone, one row a family.

Most backbones need no row: sites, widths, layouts and stages are read off a forward on torch's
``meta`` device. A row says what a shape doesn't tell: how stage outputs are reached where the model
has no ``forward_intermediates``, in which order tokens lie where it isn't raster order, and which
attributes tie a model to one image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers.format import Format
from timm.models import mvitv2
from timm.models.eva import Eva
from timm.models.hiera import Hiera, Reroll, Unroll
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from peft_dense.layout import tokens_to_map

__all__ = ["Family", "family_of", "register_family"]

_ROLES = {
    "qkv": ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj", "query", "key", "value"),
    "proj": ("proj", "out_proj", "o_proj"),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to find one's way in a family of backbones.

    Every field has a default that fits most models of timm.

    Args:
        features: Stage outputs of a model, ``(model, images) -> [(B, C_i, H_i, W_i), ...]``, finest
            first. None: ``forward_intermediates``, or a forward that returns a list of maps.
        to_map: Map of a site's tokens where they don't lie in raster order,
            ``(model, site name, tokens, image) -> (B, C, H, W)``.
        flexible: Edit a *clone* of the model in place so that it takes any image size.
        mlp: Attribute names under which blocks keep their feed-forward part.
        attn: Attribute names under which blocks keep their token mixer.
        roles: Attribute names of an attention's linears, for the roles ``qkv`` and ``proj``.
        positions: Names of the parameters or modules that give attention its relative positions.

    Example:
        >>> def features(model, x):
        ...     return [x := stage(x) for stage in model.stages]
        >>> family = Family(features=features, mlp=("feed_forward",))
    """

    features: Callable[[nn.Module, Tensor], Sequence[Tensor]] | None = None
    to_map: Callable[[nn.Module, str, Tensor, Tensor], Tensor] | None = None
    flexible: Callable[[nn.Module], None] | None = None
    mlp: tuple[str, ...] = ("mlp", "ffn", "feed_forward")
    attn: tuple[str, ...] = ("attn", "attention", "self_attn", "token_mixer")
    roles: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(_ROLES))
    positions: tuple[str, ...] = (
        "relative_position_bias_table",
        "cpb_mlp",
        "rel_pos",
        "rel_pos_h",
        "rel_pos_w",
        "attention_biases",
    )


_FAMILIES: list[tuple[type[nn.Module], Family]] = []


def register_family(model_class: type[nn.Module], family: Family) -> None:
    """Make ``inject`` use ``family`` for models of ``model_class``; the latest row wins."""
    _FAMILIES.insert(0, (model_class, family))


def family_of(model: nn.Module) -> Family:
    """Return the row that fits ``model``, or the defaults."""
    return next((row for kind, row in _FAMILIES if isinstance(model, kind)), Family())


# Swin v1 and v2 fix shift and mask to the size they were built for.


class _AnySizeWindows(nn.Module):
    """Shifted-window attention whose shift and mask follow the size of its input.

    At the size the block was built for it computes what timm's block computes.
    """

    window_size: tuple[int, int]
    target_shift_size: tuple[int, int]
    always_partition: bool
    attn: nn.Module

    def _attn(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        rows, columns = self.window_size
        # A map that fits in one window has nowhere to shift to.
        shift_y, shift_x = (
            window // 2
            if any(self.target_shift_size) and (self.always_partition or size > window)
            else 0
            for size, window in zip((height, width), self.window_size, strict=True)
        )
        if shift_y or shift_x:
            x = torch.roll(x, (-shift_y, -shift_x), (1, 2))
        x = F.pad(x, (0, 0, 0, -width % columns, 0, -height % rows))
        mask = self._mask(x, shift_y, shift_x) if shift_y or shift_x else None
        grid = x.shape[1] // rows
        x = rearrange(x, "b (h p) (w q) c -> (b h w) (p q) c", p=rows, q=columns)
        x = self.attn(x, mask=mask)
        width_padded = width + -width % columns
        x = rearrange(
            x, "(b h w) (p q) c -> b (h p) (w q) c", h=grid, w=width_padded // columns, p=rows
        )
        x = x[:, :height, :width].contiguous()
        return torch.roll(x, (shift_y, shift_x), (1, 2)) if shift_y or shift_x else x

    def _mask(self, x: Tensor, shift_y: int, shift_x: int) -> Tensor:
        """Forbid attention between the parts that the shift wrapped around: (windows, p q, p q)."""

        def regions(size: int, window: int, shift: int) -> Tensor:
            index = torch.arange(size, device=x.device)
            if not shift:
                return torch.zeros_like(index)
            return (index >= size - window).long() + (index >= size - shift).long()

        rows, columns = self.window_size
        region = (
            3 * regions(x.shape[1], rows, shift_y)[:, None]
            + regions(x.shape[2], columns, shift_x)[None, :]
        )
        region = rearrange(region, "(h p) (w q) -> (h w) (p q)", p=rows, q=columns)
        apart = region[:, :, None] != region[:, None, :]
        return torch.zeros(apart.shape, dtype=x.dtype, device=x.device).masked_fill(apart, -100.0)


class _SwinBlock(_AnySizeWindows, SwinTransformerBlock):  # type: ignore[misc]
    """timm's Swin block at any size."""


class _SwinV2Block(_AnySizeWindows, SwinTransformerV2Block):  # type: ignore[misc]
    """timm's Swin v2 block at any size."""


def _flexible_swin(model: nn.Module) -> None:
    any_size = {SwinTransformerBlock: _SwinBlock, SwinTransformerV2Block: _SwinV2Block}
    for module in model.modules():
        if hasattr(module, "strict_img_size"):
            module.strict_img_size = False  # type: ignore[assignment]
        if type(module) in any_size:
            module.__class__ = any_size[type(module)]
            module.attn_mask = None  # type: ignore[assignment]


# MViTv2 indexes its relative positions as if the image had the size it was built for.


def _resized_rel_pos(
    attn: Tensor,
    q: Tensor,
    has_cls_token: bool,
    q_size: Sequence[int],
    k_size: Sequence[int],
    *tables: Tensor,
) -> Tensor:
    """Add relative positions from tables that are resampled to the size at hand."""
    lengths = [2 * max(sizes) - 1 for sizes in zip(q_size, k_size, strict=True)]
    resized = [
        table
        if table.shape[0] == length
        else F.interpolate(table.mT[None], size=length, mode="linear")[0].mT
        for table, length in zip(tables, lengths, strict=True)
    ]
    added: Tensor = mvitv2.cal_rel_pos_type(attn, q, has_cls_token, q_size, k_size, *resized)
    return added


def _with_resized_rel_pos(forward: Any) -> Any:
    """Return ``forward`` such that it calls our ``cal_rel_pos_type`` in place of timm's."""
    names = {**forward.__globals__, "cal_rel_pos_type": _resized_rel_pos}
    return FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__)


class _MViTAttention(mvitv2.MultiScaleAttention):
    """timm's MViTv2 attention at any size."""

    forward = _with_resized_rel_pos(mvitv2.MultiScaleAttention.forward)


class _MViTAttentionPoolFirst(mvitv2.MultiScaleAttentionPoolFirst):
    """timm's MViTv2 attention that pools first, at any size."""

    forward = _with_resized_rel_pos(mvitv2.MultiScaleAttentionPoolFirst.forward)


def _flexible_mvitv2(model: nn.Module) -> None:
    any_size = {
        mvitv2.MultiScaleAttention: _MViTAttention,
        mvitv2.MultiScaleAttentionPoolFirst: _MViTAttentionPoolFirst,
    }
    for module in model.modules():
        module.__class__ = any_size.get(type(module), type(module))


# A plain ViT resamples its position embedding if it is told to.


def _flexible_vit(model: nn.Module) -> None:
    embed = getattr(model, "patch_embed", None)
    if getattr(model, "dynamic_img_size", None) is False and hasattr(embed, "output_fmt"):
        model.dynamic_img_size = True  # type: ignore[assignment]
        embed.strict_img_size = False  # type: ignore[union-attr]
        embed.flatten = False  # type: ignore[union-attr]
        embed.output_fmt = Format.NHWC  # type: ignore[union-attr]


# Hiera keeps its tokens mask unit by mask unit, in an order fixed to one image size.


def _hiera_order(model: Hiera, x: Tensor) -> tuple[Unroll, Reroll]:
    size, stride = tuple(x.shape[-2:]), model.patch_stride
    schedule = [model.q_stride] * len(model.stage_ends[:-1])
    unroll = Unroll(size, stride, schedule)
    return unroll, Reroll(size, stride, schedule, model.stage_ends, model.q_pool)


def _hiera_position(model: Hiera, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
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


def _hiera_features(model: nn.Module, x: Tensor) -> list[Tensor]:
    assert isinstance(model, Hiera)
    unroll, reroll = _hiera_order(model, x)
    tokens = model.patch_embed(x, mask=None)
    tokens = unroll(_hiera_position(model, tokens, (unroll.size[0], unroll.size[1])))
    outputs = []
    for index, block in enumerate(model.blocks):
        if model.grad_checkpointing and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, use_reentrant=False)
        else:
            tokens = block(tokens)
        if index in model.stage_ends:
            outputs.append(reroll(tokens, index).permute(0, 3, 1, 2))
    return outputs


def _hiera_to_map(model: nn.Module, site: str, tokens: Tensor, x: Tensor) -> Tensor:
    assert isinstance(model, Hiera)
    block = int(site.split(".")[1])
    rolled: Tensor = _hiera_order(model, x)[1](tokens, block)
    return rolled.permute(0, 3, 1, 2)


# torchvision's Swin has no tap: its stages and mergings alternate in one Sequential.


def _torchvision_swin_features(model: nn.Module, x: Tensor) -> list[Tensor]:
    outputs = []
    for index, layer in enumerate(model.features):  # type: ignore[arg-type]
        x = layer(x)
        if index % 2:
            outputs.append(x.permute(0, 3, 1, 2))
    return outputs


register_family(SwinTransformer, Family(flexible=_flexible_swin))
register_family(SwinTransformerV2, Family(flexible=_flexible_swin))
register_family(mvitv2.MultiScaleVit, Family(flexible=_flexible_mvitv2))
register_family(VisionTransformer, Family(flexible=_flexible_vit))
register_family(Eva, Family(flexible=_flexible_vit))
register_family(Hiera, Family(features=_hiera_features, to_map=_hiera_to_map))
register_family(TorchvisionSwin, Family(features=_torchvision_swin_features))
