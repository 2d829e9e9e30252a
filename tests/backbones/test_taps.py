"""Stage outputs are reached and laid out without a word from the user, whatever a model returns."""

from __future__ import annotations

import collections
import dataclasses
import math
import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn

from peft_dense import inject
from peft_dense.backbones import examine, family_of
from peft_dense.errors import NoSiteError, UnsupportedModelError


class Pyramid(nn.Module):
    """Three stages (stride 4, 8, 16; channels 8, 12, 16) that come out as one likes."""

    def __init__(self, form=list, layout: str = "NCHW", stem: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.layout, self.stem = form, layout, stem
        self.first, self.second = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 12, 2, 2)
        self.third, self.mlp = nn.Conv2d(12, 16, 2, 2), nn.Conv2d(16, 16, 1)

    def maps(self, x):
        first = self.first(x)
        second = self.second(first)
        return [first, second, self.mlp(self.third(second))]

    def forward(self, x):
        found = self.maps(x)
        if self.layout == "NHWC":
            found = [y.permute(0, 2, 3, 1) for y in found]
        if self.layout == "NLC":
            found = [y.flatten(2).mT for y in found]
        if self.layout == "classed":
            found = [torch.cat([y.mean((2, 3))[:, None], y.flatten(2).mT], 1) for y in found]
        if self.stem:
            found = [x, x.new_empty(len(x), 0, *x.shape[2:]), *found]
        return self.form(found)


@dataclasses.dataclass
class Levels:
    c2: torch.Tensor
    c3: torch.Tensor
    c4: torch.Tensor


@dataclasses.dataclass
class Output:
    scores: torch.Tensor
    feature_maps: tuple


Named = collections.namedtuple("Named", "fine middle coarse")

FORMS = {
    "list": list,
    "tuple": tuple,
    "dict": lambda maps: dict(zip("abc", maps, strict=True)),
    "coarse first": lambda maps: maps[::-1],
    "namedtuple": lambda maps: Named(*maps),
    "dataclass": lambda maps: Levels(*maps),
    "field": lambda maps: Output(maps[-1].mean((1, 2)), tuple(maps)),
    "key": lambda maps: {"scores": maps[-1].mean((1, 2)), "hidden_states": tuple(maps)},
    "with scores": lambda maps: (maps[-1].mean((1, 2)), maps),
    "scores among them": lambda maps: [maps[-1].mean((1, 2)), *maps],
}


def check(model: nn.Module, size=(64, 96)) -> None:
    info = examine(model)
    assert (info.channels, info.reductions, info.multiple) == ((8, 12, 16), (4, 8, 16), 16)
    x = torch.randn(2, 3, *size)
    found = info.stage_outputs(model, x)
    for a, b in zip(found, model.maps(x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_maps_in_any_container_and_either_layout(form, layout):
    check(Pyramid(FORMS[form], layout))


@pytest.mark.parametrize("layout", ["NLC", "classed"])
def test_tokens_become_maps(layout):
    check(Pyramid(list, layout))


def test_images_and_empty_maps_among_the_outputs_are_no_stages():
    check(Pyramid(list, "NCHW", stem=True))


class Single(nn.Module):
    """One map of as many channels as it has rows at 224 pixels."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 56, 4, 4), last

    def forward(self, x):
        x = self.conv(x)
        return [x.permute(0, 2, 3, 1) if self.last else x]


@pytest.mark.parametrize("last", [False, True])
def test_as_many_channels_as_rows(last):
    model = Single(last)
    info = examine(model)
    assert info.probed_size == (224, 224) and info.grids == ((56, 56),)
    x = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(info.stage_outputs(model, x)[0], model.conv(x))


def test_a_tap_is_compiled_without_a_break():
    for layout in ("NCHW", "NHWC", "NLC"):
        model = Pyramid(tuple, layout)
        info = examine(model)
        x = torch.randn(2, 3, 32, 48)
        run = torch.compile(
            lambda x, m=model, i=info: i.stage_outputs(m, x), backend="eager", fullgraph=True
        )
        for a, b in zip(run(x), info.stage_outputs(model, x), strict=True):
            assert torch.equal(a, b)


def test_a_model_without_maps_is_refused():
    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)))

    with pytest.raises(UnsupportedModelError, match="stage outputs can't be reached. Pass"):
        examine(Scores())


# ------------------------------------------------------------------ strides and sizes


class Halving(nn.Module):
    """Stages at stride 16, 32 and 64, each rounded up."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mlp = nn.Conv2d(3, 8, 16, 16), nn.Conv2d(8, 8, 1)
        self.down = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))

    def forward(self, x):
        first = self.mlp(self.stem(x))
        return [first, second := self.down[0](first), self.down[1](second)]


def test_strides_round_up():
    info = examine(Halving())
    assert info.probed_size == (224, 224) and info.grids[-1] == (4, 4)
    assert (info.reductions, info.multiple) == ((16, 32, 64), 64)
    adapted = inject(Halving(), "vmt_lite", tasks=["a"])
    assert [tuple(f.shape[2:]) for f in adapted(torch.zeros(1, 3, 256, 320))["a"]] == [
        (16, 20),
        (8, 10),
        (4, 5),
    ]


class Filled(nn.Module):
    """Brings every image to the next multiple of 64 before it computes stages 8 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mlp = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1)
        self.down = nn.Conv2d(8, 8, 4, 4)

    def forward(self, x):
        size = tuple(64 * math.ceil(side / 64) for side in x.shape[2:])
        first = self.mlp(self.stem(nn.functional.interpolate(x, size)))
        return [first, self.down(first)]


def test_a_model_whose_stages_grow_in_larger_steps_takes_those():
    info = examine(Filled().apply(lambda module: setattr(module, "img_size", 64)))
    assert (info.reductions, info.multiple) == ((8, 32), 64)


class Padded(nn.Module):
    """Tokens of 16 x 16 pixels, those at the edge filled up; sides of 64 and 72 have 4 and 5."""

    img_size = (64, 72)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mlp = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 8)

    def forward(self, x):
        height, width = x.shape[2:]
        x = nn.functional.pad(x, (0, -width % 16, 0, -height % 16))
        return [self.mlp(self.stem(x).flatten(2).mT)]


def test_tokens_at_the_edge_are_part_of_the_grid():
    info = examine(Padded())
    assert (info.probed_size, info.grids, info.reductions) == ((64, 72), ((4, 5),), (16,))
    assert all(isinstance(side, int) for side in info.grids[0])


@pytest.mark.parametrize("name", ["efficientvit_m0", "shvit_s1"])
def test_timms_strides_of_64(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    info = examine(model)
    assert (info.reductions, info.multiple) == ((16, 32, 64), 64)
    info.check_images(torch.zeros(1, 3, 256, 256, device="meta"))


def test_a_model_built_for_another_size_than_its_weights_is_probed_at_it():
    with torch.device("meta"):
        model = timm.create_model("levit_128", img_size=256)
    info = examine(model)
    assert info.probed_size == (256, 256) and info.reductions == (16, 32, 64)


# ------------------------------------------------------------------ any number of channels


class SpaceToDepth(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.mlp = nn.Conv2d(16 * channels, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return [self.mlp(self.conv(nn.functional.pixel_unshuffle(x, 4)))]


class Coordinates(nn.Module):
    """Adds two channels of its own before its first convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.mlp = nn.Conv2d(channels + 2, 8, 4, 4), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return [self.mlp(self.conv(torch.cat([x, x.new_zeros(len(x), 2, *x.shape[2:])], 1)))]


class LinearPatches(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed, self.mlp = nn.Linear(16 * channels, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = nn.functional.pixel_unshuffle(x, 4).permute(0, 2, 3, 1)
        return [self.mlp(self.embed(x))]


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize(
    "make",
    [
        SpaceToDepth,
        Coordinates,
        LinearPatches,
        lambda n: timm.models.swin_transformer.SwinTransformer(
            img_size=64, window_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2), in_chans=n
        ),
    ],
)
def test_images_of_any_number_of_channels(make, channels):
    adapted = inject(make(channels), "vmt_lite", tasks=["a"])
    assert adapted.info.in_channels == channels
    adapted(torch.zeros(1, channels, 64, 64))
    wrong = torch.zeros(1, channels + 1, 64, 64)
    with pytest.raises(ValueError, match=rf"expected \(B, {channels}, H, W\)"):
        adapted(wrong)


# ------------------------------------------------------------------ other libraries


SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1, 1, 1)}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto", "resnet18"])
def test_features_only_models_of_timm(name):
    options = SWIN | {"num_heads": (1, 1, 2, 4)} if "swin" in name else {}
    whole = timm.create_model(name, **options).eval()
    model = timm.create_model(name, features_only=True, **options).eval()
    info = examine(model)
    assert info.reductions == (4, 8, 16, 32) and info.multiple == 32
    x = torch.randn(1, 3, 64, 64)
    (path,) = inject(model, "decoders_only", tasks=["a"]).paths.values()
    found = info.stage_outputs(path, x)
    assert [tuple(y.shape) for y in found] == [
        (1, c, 64 // r, 64 // r) for c, r in zip(info.channels, info.reductions, strict=True)
    ]
    assert info.channels == examine(whole).channels


TORCHVISION = {
    "swin": lambda: torchvision.models.SwinTransformer(
        [4, 4], 16, [1, 1, 1, 1], [1, 1, 2, 4], [4, 4]
    ),
    "convnext": lambda: torchvision.models.ConvNeXt(
        [
            torchvision.models.convnext.CNBlockConfig(a, b, 1)
            for a, b in ((16, 32), (32, 64), (64, 128), (128, None))
        ]
    ),
    "maxvit": lambda: torchvision.models.MaxVit(
        input_size=(64, 64),
        stem_channels=16,
        partition_size=2,
        block_channels=[16, 32, 64, 128],
        block_layers=[1, 1, 1, 1],
        head_dim=16,
        stochastic_depth_prob=0.0,
    ),
}


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.parametrize("method", ["vmt_lite", "shared_adapter", "ssf", "bitfit"])
def test_models_of_torchvision(name, method):
    torch.manual_seed(0)
    model = TORCHVISION[name]().eval()
    adapted = inject(model, method, tasks=["a"])
    assert adapted.reductions == (4, 8, 16, 32)
    x = torch.randn(1, 3, *adapted.info.probed_size)
    outputs = adapted(x)["a"]
    # What the classifier reads is the last stage.
    final = outputs[-1].permute(0, 2, 3, 1) if name == "swin" else outputs[-1]
    scores = {
        "swin": lambda: model.head(model.norm(final).mean((1, 2))),
        "convnext": lambda: model.classifier(model.avgpool(final)),
        "maxvit": lambda: model.classifier(final),
    }[name]()
    torch.testing.assert_close(scores, model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("site", ["window", "grid"])
def test_parts_of_torchvisions_maxvit_become_the_map(site):
    model = TORCHVISION["maxvit"]().eval()
    to_map = family_of(model).to_map
    name = f"blocks.0.layers.0.layers.{site}_attention"
    layer = model.get_submodule(name)
    x = torch.randn(2, 16, *layer.grid_size)
    parts = layer.partition_swap(layer.partition_op(x, layer.p))
    found = to_map(model, f"{name}.mlp_layer", parts, torch.zeros(2, 3, 64, 64))
    torch.testing.assert_close(found, x)


def transformers_config(name: str, **options):
    transformers = pytest.importorskip("transformers")
    return transformers, getattr(transformers, f"{name}Config")(**options)


SMALL = {
    "Swin": {
        "image_size": 128,
        "window_size": 4,
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 4],
    },
    "Swinv2": {
        "image_size": 64,
        "window_size": 4,
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 4],
    },
    "Hiera": {
        "image_size": [64, 64],
        "embed_dim": 16,
        "depths": [1, 1, 2, 1],
        "num_heads": [1, 1, 2, 4],
    },
    "Dinov2": {
        "image_size": 56,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
    },
    "PvtV2": {
        "image_size": 64,
        "hidden_sizes": [16, 32, 64, 64],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
    },
    "ConvNext": {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1]},
    "ResNet": {
        "hidden_sizes": [16, 32, 64, 128],
        "depths": [1, 1, 1, 1],
        "embedding_size": 16,
        "layer_type": "basic",
    },
}


@pytest.mark.filterwarnings("ignore:.*is flat", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", SMALL)
def test_backbones_of_transformers_give_every_stage(name):
    transformers, config = transformers_config(name, **SMALL[name])
    model = getattr(transformers, f"{name}Backbone")(config).eval()
    told = list(model.out_features)
    info = examine(model)
    (path,) = inject(model, "decoders_only", tasks=["a"]).paths.values()
    assert len(info.channels) == 4 and list(model.out_features) == told
    x = torch.randn(1, 3, *info.probed_size)
    found = info.stage_outputs(path, x)
    assert [tuple(y.shape[1:]) for y in found] == [
        (c, *grid) for c, grid in zip(info.channels, info.grids, strict=True)
    ]
    torch.testing.assert_close(found[-1], model(x).feature_maps[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*is flat", "ignore::DeprecationWarning")
def test_a_backbone_of_transformers_that_gives_several_stages_gives_those():
    transformers, config = transformers_config("Swin", **SMALL["Swin"])
    config.out_features = ["stage2", "stage4"]
    model = transformers.SwinBackbone(config).eval()
    info = examine(model)
    assert info.reductions == (8, 32)
    x = torch.randn(1, 3, 128, 128)
    for a, b in zip(info.stage_outputs(model, x), model(x).feature_maps, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:.*is flat", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["Segformer", "Swin", "Swinv2", "Hiera", "Dinov2", "PvtV2"])
def test_models_of_transformers(name):
    options = SMALL.get(name) or {
        "hidden_sizes": [16, 32, 64, 64],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 2, 2],
    }
    transformers, config = transformers_config(name, **options)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}Model")(config).eval()
    info = examine(model)
    expected = (14,) * 4 if name == "Dinov2" else (4, 8, 16, 32)
    assert info.reductions == expected
    x = torch.randn(1, 3, *info.probed_size)
    found = info.stage_outputs(model, x)
    assert [tuple(y.shape[1:]) for y in found] == [
        (c, *grid) for c, grid in zip(info.channels, info.grids, strict=True)
    ]
    if name in ("Segformer", "PvtV2"):
        torch.testing.assert_close(found[-1], model(x).last_hidden_state)
    elif name in ("Swin", "Swinv2"):
        tokens = model.layernorm(found[-1].flatten(2).mT)
        torch.testing.assert_close(tokens, model(x).last_hidden_state, rtol=1e-4, atol=1e-5)
    elif name == "Dinov2":
        final = model.layernorm(found[-1].flatten(2).mT)
        torch.testing.assert_close(final, model(x).last_hidden_state[:, 1:], rtol=1e-4, atol=1e-5)
    if name != "Swinv2":  # its feed-forward parts are two modules without a common one
        inject(model, "vmt_lite", tasks=["a"])(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_maps_of_transformers_swin_are_its_own_blocks():
    """Each stage as its blocks left it, not as the next merging made it; whatever came before."""
    transformers, config = transformers_config("Swin", **SMALL["Swin"])
    torch.manual_seed(0)
    model = transformers.SwinModel(config).eval()
    info = examine(model)
    x = torch.randn(1, 3, 128, 128)
    first = info.stage_outputs(model, x)
    told = model(x, output_hidden_states=True, output_hidden_states_before_downsampling=True)
    for a, b in zip(first, told.reshaped_hidden_states[1:], strict=True):
        torch.testing.assert_close(a, b)
    info.stage_outputs(model, torch.randn(1, 3, 32, 32))
    for a, b in zip(info.stage_outputs(model, x), first, strict=True):
        assert torch.equal(a, b)


def test_encoders_of_segmentation_models():
    smp = pytest.importorskip("segmentation_models_pytorch")
    for name, sites in (("mit_b0", True), ("resnet18", False)):
        model = smp.encoders.get_encoder(name, weights=None).eval()
        info = examine(model)
        assert info.reductions == (4, 8, 16, 32) and bool(info.sites) == sites
        x = torch.randn(1, 3, 64, 64)
        for a, b in zip(info.stage_outputs(model, x), model(x)[2:], strict=True):
            torch.testing.assert_close(a, b)
        for method in ("vmt_lite", "ssf") if sites else ("bitfit", "ssf"):
            adapted = inject(model, method, tasks=["a"])
            for a, b in zip(adapted(x)["a"], model(x)[2:], strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ no sites


@pytest.mark.parametrize("method", ["decoders_only", "bitfit", "multitask_full", "ssf"])
def test_methods_that_need_no_site_go_on_any_model_with_stages(method):
    model = timm.create_model("resnet18").eval()
    adapted = inject(model, method, tasks=["a"])
    x = torch.randn(1, 3, 64, 64)
    expected = model.forward_intermediates(x, intermediates_only=True)[-4:]
    for a, b in zip(adapted(x)["a"], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["vmt_lite", "adapter", "shared_lora", "polyhistor_lite"])
def test_methods_that_need_sites_say_what_there_is(method):
    model = timm.create_model("resnet18")
    with pytest.raises(NoSiteError, match="ResNet; it has none.* hold aa, act1, .*conv1"):
        inject(model, method)


def test_nothing_warns_but_flatness():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        examine(Pyramid())
