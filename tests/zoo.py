"""Small backbones of many families, at random weights, built in a fraction of a second each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from timm.models.convnext import ConvNeXt
from timm.models.davit import DaVit
from timm.models.edgenext import EdgeNeXt
from timm.models.focalnet import FocalNet
from timm.models.gcvit import GlobalContextVit
from timm.models.hiera import Hiera
from timm.models.hieradet_sam2 import HieraDet
from timm.models.maxxvit import MaxxVit, MaxxVitCfg
from timm.models.metaformer import (
    Attention,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormer,
    Pooling,
    SepConv,
)
from timm.models.mlp_mixer import MlpMixer
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.nest import Nest
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.tiny_vit import TinyVit
from timm.models.twins import Twins
from timm.models.vision_transformer import VisionTransformer
from timm.models.volo import VOLO
from torch import nn
from torchvision.models.convnext import CNBlockConfig
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


def _timm(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, **options)


def _transformers(name: str, **options) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        kind = name.removesuffix("Backbone").removesuffix("Model")
        config = getattr(transformers, f"{kind}Config")(**options)
        model: nn.Module = getattr(transformers, name)(config)
        return model

    return make


def _segmentation(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        smp = pytest.importorskip("segmentation_models_pytorch")
        model: nn.Module = smp.encoders.get_encoder(name, weights=None)
        return model

    return make


_ONES = (1, 1, 1, 1)
_WIDTHS = (16, 32, 64, 128)
_HF_SWIN = {
    "image_size": 2 * SIZE,
    "window_size": 4,
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 4],
}
_HF_PYRAMID = {
    "hidden_sizes": [16, 32, 64, 64],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
}
_HF_FLAT = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}

MORE: dict[str, Callable[[], nn.Module]] = {
    # timm: other layouts, prefixes, strides and names
    "efficientformer": _timm(
        "efficientformer_l1", depths=(1, 1, 1, 2), embed_dims=_WIDTHS, num_vit=1
    ),
    "efficientformerv2": _timm(
        "efficientformerv2_s0",
        img_size=SIZE,
        depths=(1, 1, 1, 2),
        embed_dims=_WIDTHS,
        num_vit=1,
        mlp_ratios=(((2,) * 2),) * 4,
    ),
    "convit": _timm("convit_tiny", img_size=SIZE, embed_dim=32, depth=3, local_up_to_layer=2),
    "crossvit": _timm(
        "crossvit_tiny_240",
        img_size=48,
        img_scale=(1.0, 1.0),
        embed_dim=(16, 32),
        num_heads=(2, 2),
        depth=((1, 1, 0), (1, 1, 0)),
    ),
    "efficientvit_m": _timm("efficientvit_m0", img_size=SIZE, depth=(1, 1, 1)),
    "levit": _timm("levit_128s", img_size=SIZE, depth=(1, 1, 1)),
    "shvit": _timm("shvit_s1", depth=(1, 1, 1)),
    "mobilevitv2": _timm("mobilevitv2_050"),
    "nextvit": _timm("nextvit_small", depths=(1, 2, 5, 2)),
    "maxvit": lambda: MaxxVit(
        MaxxVitCfg(embed_dim=_DIMS, depths=_ONES, block_type=("M",) * 4, stem_width=32),
        img_size=SIZE,
    ),
    "coatnet": lambda: MaxxVit(
        MaxxVitCfg(embed_dim=_WIDTHS, depths=_ONES, block_type=("C", "C", "T", "T"), stem_width=16),
        img_size=SIZE,
    ),
    "fastvit": _timm("fastvit_t8", layers=_ONES),
    "repvit": _timm("repvit_m0_9", depth=(1, 1, 2, 1)),
    "xcit": _timm("xcit_nano_12_p16_224", depth=2),
    "gcvit": lambda: GlobalContextVit(
        img_size=SIZE, window_ratio=(32, 32, 16, 32), embed_dim=32, depths=_ONES, num_heads=_HEADS
    ),
    "cait": _timm("cait_xxs24_224", img_size=SIZE, depth=2),
    "beit": _timm("beit_base_patch16_224", img_size=SIZE, embed_dim=32, depth=2, num_heads=2),
    "eva": _timm("eva02_tiny_patch14_224", img_size=56, depth=2),
    "deit_distilled": _timm("deit_tiny_distilled_patch16_224", img_size=SIZE, depth=2),
    "coat": _timm("coat_lite_tiny", img_size=SIZE),
    "visformer": _timm("visformer_tiny", img_size=SIZE, depth=(1, 1, 1)),
    "volo": lambda: VOLO(
        layers=_ONES, img_size=SIZE, embed_dims=(48, 96, 96, 96), num_heads=(2, 4, 4, 4)
    ),
    "pit": _timm("pit_ti_224", img_size=SIZE, depth=(1, 1, 1)),
    "mixer": lambda: MlpMixer(img_size=SIZE, patch_size=16, num_blocks=2, embed_dim=64),
    "inception_next": _timm("inception_next_atto", depths=_ONES),
    "swiftformer": _timm("swiftformer_xs"),
    "mobilenet": _timm("mobilenetv4_conv_small_050"),
    "resnet": _timm("resnet18"),
    "swin_features_only": _timm(
        "swin_tiny_patch4_window7_224",
        features_only=True,
        img_size=SIZE,
        window_size=4,
        embed_dim=16,
        depths=_ONES,
        num_heads=(1, 1, 2, 4),
    ),
    # torchvision
    "torchvision_convnext": lambda: torchvision.models.ConvNeXt(
        [CNBlockConfig(a, b, 1) for a, b in ((16, 32), (32, 64), (64, 128), (128, None))]
    ),
    "torchvision_maxvit": lambda: torchvision.models.MaxVit(
        input_size=(SIZE, SIZE),
        stem_channels=16,
        partition_size=2,
        block_channels=list(_WIDTHS),
        block_layers=[1, 1, 1, 1],
        head_dim=16,
        stochastic_depth_prob=0.0,
    ),
    "torchvision_resnet": lambda: torchvision.models.resnet18(),
    "torchvision_regnet": lambda: torchvision.models.regnet_y_400mf(),
    # transformers
    "SwinBackbone": _transformers("SwinBackbone", **_HF_SWIN),
    "SwinModel": _transformers("SwinModel", **_HF_SWIN),
    "Swinv2Backbone": _transformers("Swinv2Backbone", **_HF_SWIN),
    "HieraBackbone": _transformers(
        "HieraBackbone",
        image_size=[SIZE, SIZE],
        embed_dim=16,
        depths=[1, 1, 2, 1],
        num_heads=[1, 1, 2, 4],
    ),
    "Dinov2Backbone": _transformers("Dinov2Backbone", image_size=56, **_HF_FLAT),
    "PvtV2Backbone": _transformers("PvtV2Backbone", image_size=SIZE, **_HF_PYRAMID),
    "ConvNextBackbone": _transformers(
        "ConvNextBackbone", hidden_sizes=list(_WIDTHS), depths=[1, 1, 1, 1]
    ),
    "SegformerModel": _transformers("SegformerModel", **_HF_PYRAMID),
    "ViTModel": _transformers("ViTModel", image_size=SIZE, **_HF_FLAT),
    # segmentation_models.pytorch
    "smp_mit_b0": _segmentation("mit_b0"),
    "smp_resnet18": _segmentation("resnet18"),
}
"""One small model of each further family; one whose library is absent skips its test."""

FIVE = ("swin", "swinv2", "pvtv2", "mvitv2", "hiera")
"""The families on which every law of every method is checked."""


def build(name: str) -> nn.Module:
    """Build a backbone, wake what starts at zero, and put it in eval mode."""
    torch.manual_seed(0)
    model = (BACKBONES | MORE)[name]()
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
