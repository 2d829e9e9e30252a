"""Layouts, prefixes, scopes and updating buffers are read off what modules did."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import nn

from peft_dense.backbones import Operation, examine
from peft_dense.backbones.axes import channel_axis, steady_axes
from peft_dense.backbones.watch import Watch
from zoo import BACKBONES, build


def quietly(model: nn.Module, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return examine(model, **keywords)


class Norm(nn.Module):
    """A norm whose class says nothing: of maps or tokens, on any axis."""

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.weight, self.axis = nn.Parameter(torch.ones(channels)), axis

    def forward(self, x):
        x = x.movedim(self.axis, -1)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.weight
        return x.movedim(-1, self.axis)


class FirstNorm(nn.LayerNorm):
    """A LayerNorm by class that normalises maps (B, C, H, W), as segmentation encoders have."""

    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Tokens(nn.Module):
    """A stage of tokens (B, N, C) with an RMSNorm; the image size may be fixed."""

    def __init__(self, channels: int = 16, side: int | None = None, prefix: int = 0) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, channels, 4, 4), side
        self.norm, self.first = nn.RMSNorm(channels), FirstNorm(channels)
        self.prefix = nn.Parameter(torch.zeros(1, prefix, channels))
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.Linear(channels, channels))

    def forward(self, x):
        x = self.first(self.stem(x))
        assert self.side in (None, x.shape[-1])
        height, width = x.shape[-2:]
        tokens = torch.cat([self.prefix.expand(len(x), -1, -1), x.flatten(2).mT], 1)
        tokens = tokens + self.mlp(self.norm(tokens))
        tokens = tokens[:, self.prefix.shape[1] :]
        return [tokens.mT.unflatten(2, (height, width))]


# ------------------------------------------------------------------ the channel axis


def test_channels_are_what_does_not_change_with_the_image():
    assert steady_axes([(1, 96, 56, 56), (2, 96, 64, 72)]) == [1]
    assert steady_axes([(1, 49, 96), (2, 49, 96)]) == [1, 2]
    assert steady_axes([(1, 49, 96), (1, 7, 7, 96)]) == []


def axes_of(model: nn.Module) -> dict[str, int]:
    return {operation.name: operation.channel_axis for operation in quietly(model).operations}


def test_a_norms_axis_is_not_its_classs():
    expected = {"stem": 1, "norm": -1, "first": 1, "mlp.0": -1, "mlp.1": -1}
    assert axes_of(Tokens()) == expected


@pytest.mark.parametrize("channels", [16, 256])
def test_as_many_tokens_as_channels_at_one_size_only(channels):
    """16 x 16 tokens of 256 channels: shapes can't tell, so the modules are asked."""
    model = Tokens(channels, side=16).eval()
    info = quietly(model.apply(lambda m: setattr(m, "img_size", 64)), family=None)
    assert info.multiple is None and info.grids == ((16, 16),)
    assert axes_of(model) == {"stem": 1, "norm": -1, "first": 1, "mlp.0": -1, "mlp.1": -1}


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize(
    "make",
    [
        lambda axis: Norm(6, axis),
        lambda axis: nn.LayerNorm(6) if axis == -1 else FirstNorm(6),
        lambda axis: nn.Linear(6, 6) if axis == -1 else nn.Conv2d(6, 6, 1, bias=False),
        lambda axis: nn.RMSNorm(6) if axis == -1 else nn.GroupNorm(2, 6),
        lambda axis: (
            nn.Linear(6, 6, bias=False)
            if axis == -1
            else nn.utils.parametrizations.weight_norm(nn.Conv2d(6, 6, 1))
        ),
        lambda axis: nn.LayerNorm(6) if axis == -1 else nn.BatchNorm2d(6).requires_grad_(False),
    ],
)
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
def test_a_module_that_is_asked_says_where_its_channels_lie(make, axis, default):
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)  # a user's; what is asked must not depend on it
    try:
        ask(make, axis)
    finally:
        torch.set_default_dtype(before)


def ask(make, axis):
    module = make(axis).to("meta").eval()
    watch = Watch(module)
    image = torch.empty(1, 6, 6, 6, device="meta")
    with watch.record(image) as calls:
        module(image)
        seen = list(calls[""])
    watch.close()
    state = torch.random.get_rng_state()
    assert channel_axis(module, seen, 6) == axis
    assert torch.equal(state, torch.random.get_rng_state())


def test_operations_of_swin_are_its_stem_norms_and_called_linears():
    info = quietly(build("swin"))
    by_kind = {kind: [o for o in info.operations if o.kind == kind] for kind in ("stem", "norm")}
    assert by_kind["stem"] == [
        Operation(name="patch_embed.proj", kind="stem", channels=32, channel_axis=1)
    ]
    assert {o.name for o in by_kind["norm"]} == {
        name.rpartition(".")[0] for name in info.norms if name.endswith("weight")
    }
    linears = {o.name for o in info.operations if o.kind == "linear"}
    assert linears == {li.name for site in info.sites for li in site.linears if li.called}


@pytest.mark.parametrize("family", BACKBONES)
def test_operations_say_where_a_real_forward_has_the_channels(family):
    """Scaling one channel of what an operation gives is what scaling its weight's row does."""
    model = build(family)
    info, found = quietly(model), []
    if info.family.flexible is not None:
        info.family.flexible(model)
    for operation in info.operations:
        module = model.get_submodule(operation.name)

        def hook(module, args, output, operation=operation):
            found.append(operation.name)
            assert output.shape[operation.channel_axis] == operation.channels
            if isinstance(module, (nn.Linear, nn.LayerNorm)) and "2d" not in type(module).__name__:
                assert operation.channel_axis == -1
            if isinstance(module, (nn.Conv2d, nn.modules.batchnorm._NormBase, nn.GroupNorm)):
                assert operation.channel_axis == 1

        module.register_forward_hook(hook)
    with torch.no_grad():
        info.stage_outputs(model, torch.zeros(1, 3, *info.probed_size))
    assert set(found) == {operation.name for operation in info.operations}


# ------------------------------------------------------------------ tokens, maps, scopes


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_class_and_register_tokens_are_counted(prefix):
    info = quietly(Tokens(prefix=prefix))
    (site,) = info.sites
    assert (site.prefix, site.raster, info.fits(site)) == (prefix, True, True)
    assert site.tokens == prefix + math.prod(info.grids[0])
    assert (site.scope.module, site.scope.argument, site.scope.axes) == ("", 0, (2, 3))
    assert site.scope.stride == 4


@pytest.mark.filterwarnings("ignore:.* is flat")
@pytest.mark.parametrize("family", BACKBONES)
def test_a_scope_gives_the_height_and_width_of_a_sites_map(family):
    """At a size that the probe hasn't seen, too."""
    model = build(family)
    info = quietly(model)
    if info.family.flexible is not None:
        info.family.flexible(model)
    size = info.probed_size
    if info.multiple is not None:
        size = (2 * info.multiple, 4 * info.multiple)
    seen: dict[str, tuple[int, int]] = {}
    checked = []

    def look(scope):
        def hook(module, args):
            value = args[scope.argument]
            seen[scope.module] = tuple(
                value if scope.axes is None else (value.shape[axis] for axis in scope.axes)
            )

        return hook

    def check(site):
        def hook(module, args, output):
            stream = output[0] if isinstance(output, tuple) else output
            height, width = (-(-side // site.scope.stride) for side in seen[site.scope.module])
            checked.append(site.name)
            if stream.ndim == 4:
                axes = (2, 3) if site.channel_axis == 1 else (1, 2)
                assert (stream.shape[axes[0]], stream.shape[axes[1]]) == (height, width)
            else:
                assert stream.shape[1] == site.prefix + height * width

        return hook

    scoped = [site for site in info.sites if site.scope is not None]
    for scope in {site.scope for site in scoped}:
        if scope.module:
            model.get_submodule(scope.module).register_forward_pre_hook(look(scope))
        else:
            seen[""] = size
    for site in scoped:
        assert site.name.startswith(site.scope.module)
        model.get_submodule(site.name).register_forward_hook(check(site))
    with torch.no_grad():
        info.stage_outputs(model, torch.zeros(2, 3, *size))
    assert checked == [site.name for site in scoped]


def test_windows_and_blocks_have_no_scope():
    for family in ("swin", "hiera", "nest"):
        for site in quietly(build(family)).sites:
            if family != "swin" or site.kind == "attn":
                assert site.scope is None
    for site in quietly(build("swin")).find("mlp"):
        assert site.scope.module == site.name.rpartition(".")[0]


def test_the_nearest_module_that_sees_the_map_is_the_scope():
    for site in quietly(build("pvtv2")).sites:
        assert (site.scope.module, site.scope.argument, site.scope.axes) == (site.name, 1, None)
    for site in quietly(build("convnext_nchw")).sites:
        assert (site.scope.module, site.scope.axes, site.scope.stride) == (site.name, (2, 3), 1)
    for site in quietly(build("convnext_nhwc")).sites:
        assert (site.scope.module, site.scope.axes, site.scope.stride) == (site.name, (1, 2), 1)


def test_blocks_of_a_map_become_the_map():
    """A site of Nest sees (B, blocks, tokens, C); its row lays the blocks side by side."""
    from timm.models.nest import deblockify

    model = build("nest")
    info = quietly(model)
    image = torch.zeros(2, 3, 64, 64)
    for site in info.find("mlp"):
        assert info.fits(site)
        blocks, tokens = site.grid
        x = torch.randn(2, blocks, tokens, site.width)
        found = info.family.to_map(model, site.name, x, image)
        side = math.isqrt(tokens)
        torch.testing.assert_close(found, deblockify(x, side).permute(0, 3, 1, 2))
        assert found.shape[-2:] == info.grids[site.stage]


def test_a_site_on_another_map_than_its_stages_does_not_fit():
    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.mlp = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1)
            self.wide, self.down = nn.Module(), nn.Conv2d(8, 16, 2, 2)
            self.wide.mlp = nn.Conv2d(16, 16, 1)

        def forward(self, x):
            x = self.mlp(self.stem(x))
            x = self.down(x)
            return [self.wide.mlp(x)]

    info = quietly(Halved())
    assert [(site.name, info.fits(site)) for site in info.sites] == [
        ("mlp", False),
        ("wide.mlp", True),
    ]


def test_of_nested_sites_the_outermost_is_one():
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.attn = nn.Conv2d(3, 8, 4, 4), nn.Module()
            self.attn = nn.Sequential()
            self.attn.attn = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            return [self.attn(self.stem(x))]

    assert [site.name for site in quietly(Nested()).sites] == ["attn"]


def test_a_site_after_the_last_stage_is_none():
    class After(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.mlp = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1)
            self.head = nn.Module()
            self.head.mlp = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.mlp(self.stem(x))
            return {"maps": [x], "scores": self.head.mlp(x).mean((2, 3))}

    assert [site.name for site in quietly(After()).sites] == ["mlp"]


# ------------------------------------------------------------------ buffers


class Averaging(nn.Module):
    """Keeps a running mean in a buffer of its own kind; may replace it instead of writing it."""

    def __init__(self, replaces: bool) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("constant", torch.ones(8))
        self.replaces = replaces

    def forward(self, x):
        if self.training:
            new = self.mean * 0.9 + x.detach().mean((0, 2, 3)) * 0.1
            if self.replaces:
                self.mean = new
            else:
                self.mean.copy_(new)
        return x - self.mean[:, None, None] * self.constant[:, None, None]


def updating(*layers: nn.Module, norm: type[nn.Module] = nn.Identity) -> tuple[str, ...]:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.parts = nn.Conv2d(3, 8, 4, 4), nn.Sequential(*layers)

        def forward(self, x):
            return [self.parts(self.stem(x))]

    return quietly(Net()).updating


def test_what_train_mode_writes_is_found():
    old = torch.nn.utils.spectral_norm(nn.Conv2d(8, 8, 1))
    new = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))
    found = updating(
        nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), old, new, Averaging(True), Averaging(False)
    )
    assert found == (
        "parts.0",
        "parts.2",
        "parts.3.parametrizations.weight.0",
        "parts.4",
        "parts.5",
    )


def test_what_train_mode_does_not_write_is_not_named():
    stateless = nn.BatchNorm2d(8, track_running_stats=False)
    assert updating(stateless, nn.GroupNorm(2, 8), nn.Dropout(0.5)) == ()
    assert quietly(build("swin")).updating == ()


def test_batch_norms_are_named_where_train_mode_fails():
    class OnlyEval(nn.Module):
        def forward(self, x):
            assert not self.training, "not made for training"
            return x

    assert updating(nn.BatchNorm2d(8), OnlyEval()) == ("parts.0",)


def test_every_buffer_that_training_changes_is_named():
    for family in ("tiny_vit", "edgenext", "pvtv2", "caformer"):
        model = build(family)
        info = quietly(model)
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.train()(torch.randn(2, 3, 64, 64))
        changed = {
            name.rpartition(".")[0]
            for name, buffer in model.named_buffers()
            if not torch.equal(buffer, before[name])
        }
        unused = tuple(f"{name}." for name in info.unused)
        assert {name for name in changed if not f"{name}.".startswith(unused)} <= {*info.updating}
