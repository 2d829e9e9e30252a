"""Small backbones of many families, at random weights, built in a fraction of a second each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.models.convnext import ConvNeXt
from timm.models.davit import DaVit
from timm.models.edgenext import EdgeNeXt
from timm.models.focalnet import FocalNet
from timm.models.hiera import Hiera
from timm.models.hieradet_sam2 import HieraDet
from timm.models.metaformer import (
    Attention,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormer,
    Pooling,
    SepConv,
)
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.nest import Nest
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.tiny_vit import TinyVit
from timm.models.twins import Twins
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

SIZE = 64
_SWIN = {"img_size": SIZE, "window_size": 4, "embed_dim": 32, "depths": (1, 2, 2, 1)}
_HEADS = (1, 2, 4, 8)
_DIMS = (32, 64, 128, 256)

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "swin": lambda: SwinTransformer(**_SWIN, num_heads=_HEADS),
    "swinv2": lambda: SwinTransformerV2(**_SWIN, num_heads=_HEADS),
    "pvtv2": lambda: PyramidVisionTransformerV2(
        depths=(1, 2, 2, 1), embed_dims=(32, 64, 160, 256), num_heads=(1, 2, 5, 8)
    ),
    "mvitv2": lambda: MultiScaleVit(
        MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=32), img_size=(SIZE, SIZE)
    ),
    "hiera": lambda: Hiera(img_size=(SIZE, SIZE), embed_dim=32, stages=(1, 1, 2, 1)),
    "twins_svt": lambda: Twins(
        img_size=SIZE, embed_dims=_DIMS, num_heads=_HEADS, depths=(1, 2, 2, 1), wss=(7, 7, 7, 7)
    ),
    "twins_pcpvt": lambda: Twins(
        img_size=SIZE, embed_dims=_DIMS, num_heads=_HEADS, depths=(1, 1, 2, 1)
    ),
    "davit": lambda: DaVit(depths=(1, 1, 1, 1), embed_dims=_DIMS, num_heads=_HEADS),
    "caformer": lambda: MetaFormer(
        depths=(1, 1, 2, 1),
        dims=_DIMS,
        token_mixers=[SepConv, SepConv, Attention, Attention],
        norm_layers=[LayerNorm2dNoBias, LayerNorm2dNoBias, LayerNormNoBias, LayerNormNoBias],
    ),
    "poolformer": lambda: MetaFormer(depths=(1, 1, 2, 1), dims=_DIMS, token_mixers=Pooling),
    "convnext_nchw": lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=_DIMS, conv_mlp=True),
    "convnext_nhwc": lambda: ConvNeXt(depths=(1, 1, 2, 1), dims=_DIMS, use_grn=True),
    "edgenext": lambda: EdgeNeXt(
        depths=(1, 1, 2, 1),
        dims=(32, 64, 96, 160),
        heads=(4, 4, 4, 4),
        global_block_counts=(0, 1, 1, 1),
    ),
    "focalnet": lambda: FocalNet(embed_dim=32, depths=(1, 1, 2, 1)),
    "tiny_vit": lambda: TinyVit(
        embed_dims=(32, 64, 96, 160),
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 3, 5),
        window_sizes=(4,) * 4,
    ),
    "nest": lambda: Nest(
        img_size=SIZE, embed_dims=(32, 64, 128), num_heads=(1, 2, 4), depths=(1, 1, 1), num_levels=3
    ),
    "sam2_hiera": lambda: HieraDet(
        embed_dim=32, stages=(1, 2, 2, 1), window_spec=(8, 4, 2, 2), global_att_blocks=(4,)
    ),
    "torchvision_swin": lambda: TorchvisionSwin(
        [4, 4], 32, [1, 2, 2, 1], [1, 2, 4, 8], [4, 4], num_classes=5
    ),
    "vit": lambda: VisionTransformer(
        img_size=SIZE, patch_size=16, embed_dim=64, depth=4, num_heads=2
    ),
}
"""By family. ``vit`` is flat, ``nest`` takes one size only, poolformer and ConvNeXt have no qkv."""

FIVE = ("swin", "swinv2", "pvtv2", "mvitv2", "hiera")
"""The families on which every law of every method is checked."""


def build(name: str) -> nn.Module:
    """Build a backbone, wake what starts at zero, and put it in eval mode."""
    torch.manual_seed(0)
    model = BACKBONES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            # Zero-started post-norms, layer scales and biases would hide what an adapter does.
            if not parameter.any() or parameter.abs().max() < 1e-4:
                parameter.normal_(std=0.3)
    return model.eval()


def image(batch: int = 2, size: int = SIZE) -> torch.Tensor:
    """Draw a batch of images."""
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def perturb(module: nn.Module, parameters, scale: float = 0.1) -> None:
    """Move parameters away from the identity at which methods start."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
