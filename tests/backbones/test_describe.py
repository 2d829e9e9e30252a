"""The table of a backbone says what the probe found, place by place."""

from __future__ import annotations

import warnings

import pytest
import timm
from torch import nn

from peft_dense.backbones import describe, examine
from zoo import BACKBONES, build


def table(family: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = examine(build(family))
    return info, describe(info).splitlines()


@pytest.mark.parametrize("family", BACKBONES)
def test_every_stage_site_and_linear_has_a_line(family):
    info, lines = table(family)
    rows = [line.split() for line in lines]
    for stage, (channels, stride) in enumerate(zip(info.channels, info.reductions, strict=True)):
        assert [str(stage), str(channels), str(stride)] in [row[:3] for row in rows]
    for site in info.sites:
        (row,) = (row for row in rows if row and row[0] == site.name)
        assert row[1:4] == [site.kind, str(site.stage), str(site.width)]
        assert ("yes" if info.fits(site) else "no") in row
        place = rows.index(row)
        for linear, line in zip(site.linears, rows[place + 1 :], strict=False):
            assert line[:3] == [
                linear.name.removeprefix(site.name),
                linear.role,
                f"{linear.in_features}->{linear.out_features}",
            ]
            assert ("never" in line) != linear.called
    assert max(map(len, lines)) == max(len(line.rstrip()) for line in lines)


def test_sizes_and_channels_are_said():
    assert "images (B, 3, H, W), both sides divisible by 32" in table("swin")[1]
    assert "images (B, 3, H, W), of 64x64 only" in table("nest")[1]
    assert table("vit")[1][0].endswith("4 stages, flat: one scale")


def test_a_backbone_without_sites_says_what_its_blocks_hold():
    said = describe(examine(timm.create_model("resnet18")))
    assert "no module is a place for an adapter. Its blocks hold aa, act1" in said
    assert "written in train mode: bn1, " in said and " and 12 more" in said
    assert "left out, since nothing calls it: fc" in said


class First(nn.Module):
    """Tokens with their channels first, ``(B, C, N)``."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mlp = nn.Conv2d(3, 8, 4, 4), nn.Conv1d(8, 8, 1)

    def forward(self, x):
        x = self.stem(x)
        return [self.mlp(x.flatten(2)).unflatten(2, x.shape[2:])]


LAYOUTS = {
    "convnext_nhwc": (lambda: build("convnext_nhwc"), "NHWC"),
    "swin": (lambda: build("swin"), "NLC"),
    "pvtv2": (lambda: build("pvtv2"), "NLC"),
    "convnext_nchw": (lambda: build("convnext_nchw"), "NCHW"),
    "first": (First, "NCL"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_of_a_site_is_said(name):
    make, layout = LAYOUTS[name]
    info = examine(make())
    rows = [line.split() for line in describe(info).splitlines()]
    for site in info.find("mlp"):
        (row,) = (row for row in rows if row and row[0] == site.name)
        assert row[4] == layout
