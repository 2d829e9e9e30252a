"""Stages and sites are reached as the probe found them, and what lies elsewhere is told apart."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F

from peft_dense import inject
from peft_dense.backbones import describe, examine
from peft_dense.errors import NoSiteError
from zoo import build, image


class BeforeTheMap(nn.Module):
    """Its one feed-forward part works on a map twice as fine as the stage's output, as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.mlp = nn.Sequential(nn.Conv2d(8, 16, 1), nn.GELU(), nn.Conv2d(16, 8, 1))

    def forward(self, x):
        x = self.stem(x)
        return [F.avg_pool2d(x + self.mlp(x), 2)]


def test_a_part_on_a_finer_map_than_its_stages_does_not_fit():
    net = BeforeTheMap().eval()
    info = examine(net)
    (site,) = info.sites
    assert (site.grid, info.grids) == ((56, 56), ((28, 28),))
    assert not info.fits(site)
    with pytest.raises(NoSiteError, match=r"none of the 1 .*'mlp' has 8 channels on \(56, 56\)"):
        inject(net, "vmt", tasks=["a"])
    assert inject(net, "shared_adapter", tasks=["a"])(image())["a"][0].shape == (2, 8, 8, 8)


def test_a_deep_flat_model_gives_the_outputs_that_were_chosen():
    torch.manual_seed(0)
    net = VisionTransformer(img_size=64, patch_size=16, embed_dim=64, depth=6, num_heads=2).eval()
    with pytest.warns(UserWarning, match="flat"):
        adapted = inject(net, "decoders_only", tasks=["a"])
    every = net.forward_intermediates(image(), norm=False, intermediates_only=True)
    assert adapted.info.indices == (0, 2, 3, 5)
    for found, index in zip(adapted(image())["a"], adapted.info.indices, strict=True):
        torch.testing.assert_close(found, every[index])


class Bundle:
    """A forward's output that is neither a mapping nor a dataclass."""

    def __init__(self, maps: list[torch.Tensor]) -> None:
        self.logits, self.feature_maps = maps[-1].mean((2, 3)), maps


class Bundling(BeforeTheMap):
    def forward(self, x):
        return Bundle(super().forward(x))


def test_stages_are_found_in_an_attribute_of_the_output():
    net = Bundling().eval()
    adapted = inject(net, "decoders_only", tasks=["a"])
    torch.testing.assert_close(adapted(image())["a"][0], net(image()).feature_maps[0])


def test_prompted_attention_takes_its_mask_by_place_or_by_name():
    net = build("vit")
    with pytest.warns(UserWarning, match="flat"):
        adapted = inject(net, "vpt_shallow", tasks=["a"], prompts=3)
    attention = adapted.paths["a"].blocks[0].attn
    x = torch.randn(2, 17, 64)
    mask = torch.zeros(1, 1, 1, 3 + 17)
    mask[..., 5:] = -1e4
    by_place = attention(x, mask)
    torch.testing.assert_close(by_place, attention(x, attn_mask=mask))
    assert not torch.allclose(by_place, attention(x))


def test_where_a_size_can_be_read_is_shown():
    assert "its argument 1, (H, W)" in describe(examine(build("pvtv2")))
