"""Visual prompt tuning: learned tokens in the attention, one set per task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models.swin_transformer import WindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.swin_transformer_v2 import WindowAttention as WindowAttentionV2
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from peft_dense.backbones import BackboneInfo, Site
from peft_dense.errors import NoSiteError
from peft_dense.methods.base import Method, register
from peft_dense.nn import Prompts

__all__ = ["VPTDeep", "VPTShallow"]


@register
@dataclass(frozen=True, kw_only=True)
class VPTDeep(Method):
    """Gives every block's attention prompt tokens of its own, one set per task.

    Jia et al. 2022; Polyhistor, section 5.2 and table 1. The prompts pass the block's first norm
    where the block has one before its attention, and join the tokens of every window. All windows
    share them, no shift mask touches them, their position bias is the neutral one, and they are
    dropped after the attention. Prompt tuning is the one method that isn't the identity at the
    start.

    Checked against the official code (KMnP/vpt), Swin and ViT: norm, windows, mask, position bias,
    the uniform start, whose bound ``sqrt(6 / (3 p^2 + C))`` takes the patch size p and the width C
    of the patch embedding for the prompts of every block. There the next block replaces the
    prompts, so nothing is lost by dropping them earlier. The code has no Swin v2; its blocks
    normalise after the attention, so prompts enter them as they are.

    Args:
        prompts: Number of prompts per block.

    Raises:
        NoSiteError: The backbone's attention is none of Swin's, Swin v2's or a plain ViT's.
    """

    name: ClassVar[str] = "vpt_deep"
    paper: ClassVar[str] = "Jia et al. 2022; Polyhistor, section 5.2"
    one_path: ClassVar[bool] = False

    prompts: int = 50

    def resolve(self, info: BackboneInfo) -> VPTDeep:
        """Check that every attention is of a kind that can take prompts."""
        for site in self._sites(info):
            if site.layer not in _PROMPTED:
                raise NoSiteError(
                    f"{self.name} can't put prompts into the {site.layer.__name__} of "
                    f"{info.model}; it works on timm's Swin, Swin v2 and plain ViT. Methods that "
                    "need no change of the attention: adapter, lora, vmt_lite."
                )
        return self

    def adapt(
        self, path: nn.Module, info: BackboneInfo, tasks: Sequence[str], shared: nn.Module | None
    ) -> None:
        """Give prompts to the attentions."""
        for site in self._sites(info):
            module: Any = path.get_submodule(site.name)
            module.prompts = Prompts(self.prompts, site.width, **_start(path, info))
            # In a tuple, so that it isn't registered twice: it belongs to the block.
            module.first_norm = _first_norm(path.get_submodule(site.name.rpartition(".")[0]))
            module.__class__ = _PROMPTED[type(module)]

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """``T sum P d``."""
        return sum(self.prompts * site.width for site in self._sites(info)) * self.passes(tasks)

    def _sites(self, info: BackboneInfo) -> tuple[Site, ...]:
        return info.find("attn")


@register
@dataclass(frozen=True, kw_only=True)
class VPTShallow(VPTDeep):
    """Gives the first block's attention prompt tokens, one set per task.

    Start and place are those of ``vpt_deep``. What differs from the official code: there prompts
    travel on, through the first block's MLP, all later blocks and the patch mergings (where four
    copies of a prompt are merged into one); here they are dropped after the first attention, since
    the blocks of a general backbone take and give the map alone. So this is a weaker form than
    theirs, with the same count.
    """

    name: ClassVar[str] = "vpt_shallow"

    def _sites(self, info: BackboneInfo) -> tuple[Site, ...]:
        return info.find("attn")[:1]


def _first_norm(block: nn.Module) -> tuple[nn.Module, ...]:
    """Give the norm that a block's tokens pass before its attention, if there is one."""
    if isinstance(block, _POST_NORM):
        return ()
    norm = getattr(block, "norm1", None) or getattr(block, "norm", None)
    return () if norm is None else (norm,)


def _start(path: nn.Module, info: BackboneInfo) -> dict[str, Any]:
    """Give the patch size and the width of the patch embedding, which bound the start."""
    for module in path.modules():
        if isinstance(module, PatchEmbed):
            height, width = module.patch_size
            return {"patch": math.sqrt(height * width), "embedding": module.proj.out_channels}
    return {"patch": info.reductions[0], "embedding": info.channels[0]}


class _PromptedAttention(Attention):
    """A plain ViT's attention over tokens and prompts."""

    prompts: Prompts
    first_norm: tuple[nn.Module, ...]

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y: Tensor = super().forward(self.prompts(x, *self.first_norm), *args, **kwargs)
        return y[:, self.prompts.count :]


class _PromptedWindows(WindowAttention):
    """Swin's window attention of tokens to tokens and prompts."""

    prompts: Prompts
    first_norm: tuple[nn.Module, ...]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = _join(self, x, self.qkv)
        logits = _biased(q * self.scale @ k.mT, self._get_rel_pos_bias()[0], mask)
        return _leave(self, self.attn_drop(logits.softmax(-1)) @ v)


class _PromptedWindowsV2(WindowAttentionV2):
    """Swin v2's cosine attention to tokens and prompts (Liu et al. 2022, equations 2 and 3)."""

    prompts: Prompts
    first_norm: tuple[nn.Module, ...]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        biases: list[Tensor] = [b for b in (self.q_bias, self.k_bias, self.v_bias) if b is not None]
        qkv_bias = torch.cat(biases) if biases else None
        q, k, v = _join(self, x, lambda tokens: F.linear(tokens, self.qkv.weight, qkv_bias))
        scale = self.logit_scale.clamp(max=_MAX_LOGIT).exp()
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * scale
        # 16 sigmoid(0): what a silent perceptron gives. Zero would weigh prompts down by e^8.
        logits = _biased(logits, self._position_bias(x.shape[1]), mask, neutral=8.0)
        return _leave(self, self.attn_drop(logits.softmax(-1)) @ v)

    def _position_bias(self, tokens: int) -> Tensor:
        coordinates, index = self.relative_coords_table, self.relative_position_index
        assert isinstance(coordinates, Tensor)
        assert isinstance(index, Tensor)
        table: Tensor = self.cpb_mlp(coordinates).flatten(0, -2)
        bias = rearrange(table[index], "n m h -> h n m", n=tokens)
        return 16 * torch.sigmoid(bias)


def _join(
    attention: _PromptedWindows | _PromptedWindowsV2, x: Tensor, qkv: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Give queries of the tokens, keys and values of prompts and tokens: (B, heads, N, c) each.

    What prompts would attend to is dropped after the attention, so they need no queries; and all
    windows share their keys and values.
    """

    def heads(tokens: Tensor) -> Tensor:
        return rearrange(
            qkv(tokens), "b n (three h c) -> three b h n c", three=3, h=attention.num_heads
        )

    q, k, v = heads(x)
    # Before an empty sequence: the prompts alone, once for all windows.
    _, *shared = heads(attention.prompts(x[:1, :0], *attention.first_norm))
    k, v = (
        torch.cat([of_prompts.expand(len(x), -1, -1, -1), of_tokens], dim=2)
        for of_prompts, of_tokens in zip(shared, (k, v), strict=True)
    )
    return q, k, v


def _biased(logits: Tensor, bias: Tensor, mask: Tensor | None, neutral: float = 0.0) -> Tensor:
    """Add position bias (heads, N, N) and mask (windows, N, N) to logits (B, heads, N, P + N).

    Every token sees every prompt, at the ``neutral`` bias.
    """
    prompts = logits.shape[-1] - bias.shape[-1]
    if mask is None:
        return logits + F.pad(bias, (prompts, 0), value=neutral)
    both = F.pad(bias + mask[:, None], (prompts, 0), value=neutral)
    return (torch.unflatten(logits, 0, (-1, len(mask))) + both).flatten(0, 1)


def _leave(attention: _PromptedWindows | _PromptedWindowsV2, y: Tensor) -> Tensor:
    """Join the heads (B, heads, N, c) and project."""
    projected: Tensor = attention.proj_drop(attention.proj(y.transpose(1, 2).flatten(2)))
    return projected


_MAX_LOGIT = 4.605170185988092  # log 100
_POST_NORM = (ResPostBlock, SwinTransformerV2Block)
_PROMPTED: dict[type[nn.Module], type[nn.Module]] = {
    Attention: _PromptedAttention,
    WindowAttention: _PromptedWindows,
    WindowAttentionV2: _PromptedWindowsV2,
}
