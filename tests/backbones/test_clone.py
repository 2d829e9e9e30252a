"""Clones share every tensor, and compute at any size what the backbone computes."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models.hiera import Hiera
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from peft_dense import inject
from peft_dense.backbones import freeze, own, share, template
from peft_dense.backbones.clone import meta
from zoo import BACKBONES, build


class Tied(nn.Module):
    """A pyramid of two stages whose feed-forward parts are one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.first, self.second = nn.Module(), nn.Module()
        self.first.mlp, self.second.mlp = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.second.mlp.weight = self.first.mlp.weight

    def forward(self, x):
        fine = self.first.mlp(self.stem(x))
        return [fine, nn.functional.avg_pool2d(self.second.mlp(fine), 2)]


def storages(model: nn.Module) -> dict[str, int]:
    return {name: t.data_ptr() for name, t in model.state_dict().items() if t.numel()}


def path_of(frozen: nn.Module, updating: tuple[str, ...] = ()) -> nn.Module:
    """A path around the tensors of a frozen clone."""
    tensors = {**dict(frozen.named_parameters()), **dict(frozen.named_buffers())}
    return share(template(frozen, updating), tensors)


def test_freeze_shares_storage_and_leaves_the_flags():
    model = build("swin")
    clone = freeze(model)
    parameters = dict(model.named_parameters())
    assert {n: t for n, t in storages(clone).items() if n in parameters} == {
        n: t for n, t in storages(model).items() if n in parameters
    }
    assert not any(p.requires_grad for p in clone.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert not {id(p) for p in clone.parameters()} & {id(p) for p in model.parameters()}
    assert not {id(m) for m in clone.modules()} & {id(m) for m in model.modules()}


def test_share_refers_to_the_very_parameters():
    frozen = freeze(build("swin"))
    one, two = path_of(frozen), path_of(frozen)
    for clone in (one, two):
        assert all(a is b for a, b in zip(clone.parameters(), frozen.parameters(), strict=True))
        assert all(a is b for a, b in zip(clone.buffers(), frozen.buffers(), strict=True))
    one.layers[0].blocks[0].mlp = nn.Identity()
    assert not isinstance(two.layers[0].blocks[0].mlp, nn.Identity)
    assert not isinstance(frozen.layers[0].blocks[0].mlp, nn.Identity)


def test_meta_has_shapes_and_no_values():
    model = build("swin")
    clone = meta(model)
    assert {t.device.type for t in clone.state_dict().values()} == {"meta"}
    assert {n: t.shape for n, t in clone.state_dict().items()} == {
        n: t.shape for n, t in model.state_dict().items()
    }
    assert all(p.requires_grad for p in clone.parameters())


def test_own_gives_trainable_copies_of_the_named_ones_only():
    frozen = freeze(build("swin"))
    path = path_of(frozen)
    name = "layers.0.blocks.0.mlp.fc1.weight"
    (mine,) = own(path, [name])
    assert mine is path.get_parameter(name)
    assert mine.requires_grad
    assert torch.equal(mine, frozen.get_parameter(name))
    assert mine.data_ptr() != frozen.get_parameter(name).data_ptr()
    for other, parameter in path.named_parameters():
        assert (parameter is frozen.get_parameter(other)) == (other != name)


def test_own_gives_batch_norm_its_statistics():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    frozen = freeze(model)
    path = path_of(frozen, ("0", "1"))
    own(path, ["0.weight", "0.bias"])
    assert path[0].running_mean is not frozen[0].running_mean
    assert path[1].running_mean is frozen[1].running_mean
    path[0].train()(torch.randn(4, 3, 2, 2) + 5)
    assert not model[0].running_mean.any()


def test_tied_parameters_stay_tied():
    model = Tied()
    frozen = freeze(model)
    path = path_of(frozen)
    for clone in (frozen, path, meta(model), copy.deepcopy(path)):
        assert clone.second.mlp.weight is clone.first.mlp.weight
    names = [name for name, _ in frozen.named_parameters()]
    assert len(own(path, names)) == 5
    assert path.second.mlp.weight is path.first.mlp.weight
    assert path.first.mlp.weight is not frozen.first.mlp.weight


@pytest.mark.parametrize("name", ["multitask_full", "single_task_full"])
def test_tied_parameters_train_as_one(name):
    model = Tied()
    adapted = inject(model, name, tasks=["a"])
    (path,) = adapted.paths.values()
    assert path.second.mlp.weight is path.first.mlp.weight
    assert all(p.requires_grad for p in path.parameters())
    assert adapted.ledger().encoder == sum(p.numel() for p in model.parameters())
    x = torch.randn(1, 3, 32, 32)
    sum(f.square().sum() for f in model(x)).backward()
    sum(f.square().sum() for f in adapted(x)["a"]).backward()
    torch.testing.assert_close(path.first.mlp.weight.grad, model.first.mlp.weight.grad)


# ------------------------------------------------------------------------------ any size

SWIN = {
    "img_size": 64,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (2, 2, 2),
    "num_heads": (1, 2, 4),
}


def stages(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return model.forward_intermediates(x, norm=False, output_fmt="NCHW", intermediates_only=True)


def ours(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    return inject(model, "decoders_only", tasks=["a"])(x)["a"]


def awake(model: nn.Module) -> nn.Module:
    """Give zero-started parameters (norms after a residual, biases, positions) values."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() or parameter.abs().max() < 0.1:
                parameter.normal_(std=0.3)
    return model.eval()


def x(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2])
@pytest.mark.parametrize(
    ("size", "pads"),
    [
        ((96, 128), False),
        ((64, 96), False),
        ((112, 80), False),
        # A map smaller than its window: timm shrinks the window unless it is told to pad.
        ((96, 64), True),
        ((48, 80), True),
        ((16, 64), True),
        ((32, 32), True),
    ],
)
def test_swin_at_another_size_is_timms_own(kind, size, pads):
    torch.manual_seed(0)
    model = awake(kind(**SWIN, always_partition=pads))
    told = kind(**{**SWIN, "img_size": size}, always_partition=pads)
    missing, unexpected = told.load_state_dict(model.state_dict(), strict=False)
    assert all("attn_mask" in name for name in (*missing, *unexpected))
    for a, b in zip(ours(model, x(*size)), stages(told.eval(), x(*size)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2])
def test_swin_told_of_a_new_size_is_ours(kind):
    torch.manual_seed(0)
    model = awake(kind(**SWIN))
    expected = ours(model, x(96, 128))
    model.set_input_size((96, 128), window_size=4)
    for a, b in zip(expected, stages(model, x(96, 128)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2])
@pytest.mark.parametrize("window", [4, 7, 8])
def test_swin_at_its_own_size_is_bit_for_bit(kind, window):
    torch.manual_seed(0)
    model = awake(kind(**{**SWIN, "window_size": window}))
    for a, b in zip(ours(model, x()), stages(model, x()), strict=True):
        assert torch.equal(a, b)


NATIVE = {
    "mvitv2": lambda: MultiScaleVit(
        MultiScaleVitCfg(depths=(1, 1, 2, 1), embed_dim=16), img_size=(64, 64)
    ),
    "hiera": lambda: Hiera(img_size=(64, 64), embed_dim=16, num_heads=1, stages=(1, 1, 2, 1)),
    "hiera_win": lambda: Hiera(
        img_size=(64, 64),
        embed_dim=16,
        num_heads=1,
        stages=(1, 1, 2, 1),
        abs_win_pos_embed=True,
    ),
    "vit": lambda: VisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, num_classes=3
    ),
    "vit_reg": lambda: VisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=4, num_heads=2, reg_tokens=4
    ),
}


@pytest.mark.filterwarnings("ignore:VisionTransformer is flat")
@pytest.mark.parametrize("family", NATIVE)
def test_native_size_is_the_originals_own(family):
    torch.manual_seed(0)
    model = awake(NATIVE[family]())
    adapted = inject(model, "decoders_only", tasks=["a"])
    expected = stages(model, x())
    assert len(expected) == len(adapted.channels)
    for a, b in zip(adapted(x())["a"], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:VisionTransformer is flat")
@pytest.mark.parametrize("family", NATIVE)
@pytest.mark.parametrize("size", [(32, 64), (96, 160)])
def test_other_sizes_give_finite_maps(family, size):
    torch.manual_seed(0)
    adapted = inject(awake(NATIVE[family]()), "vmt_lite", tasks=["a"])
    maps = adapted(x(*size))["a"]
    for feature, reduction in zip(maps, adapted.reductions, strict=True):
        assert feature.shape[-2:] == (size[0] // reduction, size[1] // reduction)
        assert feature.isfinite().all()


@pytest.mark.filterwarnings("ignore:VisionTransformer is flat")
@pytest.mark.parametrize("family", [*NATIVE, "swin", "swinv2"])
def test_sizes_do_not_disturb_one_another(family):
    """No forward leaves anything behind that the next one at another size would see."""
    torch.manual_seed(0)
    model = awake(NATIVE[family]()) if family in NATIVE else build(family)
    adapted = inject(model, "vmt_lite", tasks=["a"])
    first = adapted(x())["a"]
    adapted(x(96, 32))
    for a, b in zip(adapted(x())["a"], first, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("family", sorted(BACKBONES))
@pytest.mark.filterwarnings("ignore:VisionTransformer is flat")
def test_decoders_only_is_the_backbones_own_stages(family):
    """With nothing added, a path is the backbone, stage by stage."""
    model = build(family)
    if not hasattr(model, "forward_intermediates"):
        pytest.skip("no stage outputs of its own")
    adapted = inject(model, "decoders_only", tasks=["a"])
    everything = stages(model, x())
    for a, index in zip(adapted(x())["a"], adapted.info.indices, strict=True):
        torch.testing.assert_close(a, everything[index], rtol=1e-5, atol=1e-5)


def test_a_frozen_clone_has_buffers_of_its_own():
    """What a forward writes into one, known to the probe or not, never reaches the original."""
    net = torch.nn.BatchNorm2d(3)
    frozen = freeze(net)
    frozen.running_mean.fill_(7.0)
    assert not net.running_mean.any()
