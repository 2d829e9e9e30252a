"""timm's Swin v1 and v2 fix their windows' shift and mask to the size they were built for.

Here both follow the size of the input, so that any image the stages can divide runs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn

from peft_dense.backbones.families.base import Family, register_family

__all__ = ["any_size_swin"]


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


def any_size_swin(model: nn.Module) -> None:
    """Let every Swin block of a clone take any size."""
    any_size = {SwinTransformerBlock: _SwinBlock, SwinTransformerV2Block: _SwinV2Block}
    for module in model.modules():
        if hasattr(module, "strict_img_size"):
            module.strict_img_size = False  # type: ignore[assignment]
        if type(module) in any_size:
            module.__class__ = any_size[type(module)]
            module.attn_mask = None  # type: ignore[assignment]


register_family(SwinTransformer, Family(flexible=any_size_swin))
register_family(SwinTransformerV2, Family(flexible=any_size_swin))
