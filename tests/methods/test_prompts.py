"""Prompts as keys and values alone: what the attention over prompts and tokens gives, cheaper."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense import inject

TOKENS = 4


def attention(v2: bool, heads: int, prompts: int, dtype: torch.dtype) -> nn.Module:
    """A first attention with prompts, of width 4 per head, in windows of 2 x 2."""
    kind = SwinTransformerV2 if v2 else SwinTransformer
    net = kind(
        img_size=16, window_size=2, embed_dim=4 * heads, depths=(1, 1), num_heads=(heads, 2 * heads)
    )
    path = inject(net, "vpt_deep", tasks=["a"], prompts=prompts).paths["a"].to(dtype)
    module = path.layers[0].blocks[0].attn
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def plain(module: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of prompts and tokens to prompts and tokens; what the prompts got is dropped."""
    count, heads = module.prompts.count, module.num_heads
    x = module.prompts(x, *module.first_norm)
    if isinstance(module, WindowAttention):
        qkv = module.qkv(x)
        bias, neutral = module._get_rel_pos_bias()[0], 0.0
    else:
        qkv = x @ module.qkv.weight.mT + torch.cat([module.q_bias, module.k_bias, module.v_bias])
        bias, neutral = module._position_bias(TOKENS), 8.0
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).movedim(-3, 0).transpose(2, 3)
    if isinstance(module, WindowAttention):
        logits = q @ k.mT * module.scale
    else:
        scale = module.logit_scale.clamp(max=torch.tensor(100.0).log().item()).exp()
        logits = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * scale
    logits = logits + F.pad(bias, (count, 0, count, 0), value=neutral)
    if mask is not None:
        padded = F.pad(mask, (count, 0, count, 0)).repeat(len(x) // len(mask), 1, 1)
        logits = logits + padded[:, None]
    y = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2)
    return module.proj(y)[:, count:]


@pytest.mark.parametrize("v2", [False, True])
@settings(deadline=None, max_examples=5)
@given(
    heads=st.integers(1, 3),
    prompts=st.integers(1, 6),
    images=st.integers(1, 3),
    windows=st.integers(0, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_keys_and_values_of_prompts_are_enough(v2, heads, prompts, images, windows, dtype):
    module = attention(v2, heads, prompts, dtype).requires_grad_()
    other = copy.deepcopy(module)
    x = torch.randn(images * max(windows, 1), TOKENS, 4 * heads, dtype=dtype, requires_grad=True)
    mask = None
    if windows:
        mask = torch.where(torch.rand(windows, TOKENS, TOKENS, dtype=dtype) < 0.3, -100.0, 0.0)
    slope = torch.randn_like(x)
    results = []
    for of, run in ((module, module), (other, lambda *given: plain(other, *given))):
        y = run(x, mask)
        inputs = [x, *of.parameters()]
        grads = torch.autograd.grad((y * slope).sum(), inputs, materialize_grads=True)
        results.append([y, *grads])
    tolerance = {torch.float32: 1e-3, torch.float64: 1e-9}[dtype]
    for fast, slow in zip(*results, strict=True):
        assert_close(fast, slow, rtol=tolerance, atol=tolerance * (1 + slow.abs().max().item()))
