"""What the probe finds: sites, roles, layouts and stages of small backbones."""

from __future__ import annotations

import dataclasses
import functools
import warnings

import pytest
import torch
from torch import nn

from peft_dense import AdaptedBackbone, inject
from peft_dense.backbones import examine, family_of, probe
from peft_dense.errors import NoSiteError
from peft_dense.methods import method as make_method
from zoo import BACKBONES, build, image


@functools.cache
def original(family: str) -> nn.Module:
    return build(family)


@functools.cache
def info_of(family: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return examine(original(family))


def adapt(family: str, name: str) -> AdaptedBackbone:
    """What inject does, without probing again."""
    return AdaptedBackbone(original(family), make_method(name), ["a"], info_of(family))


# Sites in the order of the forward (a: attn, m: mlp; @ stage; NCHW where the channels lie on
# axis 1), roles of the linears, and what an image's sides must be divisible by.
EXPECTED = {
    "swin": ("a0 m0 a1 m1 a1 m1 a2 m2 a2 m2 a3 m3", "fc1 fc2 proj qkv", 32),
    "swinv2": ("a0 m0 a1 m1 a1 m1 a2 m2 a2 m2 a3 m3", "fc1 fc2 proj qkv", 32),
    "mvitv2": ("a0 m0 a1 m1 a2 m2 a2 m2 a3 m3", "fc1 fc2 proj qkv", 32),
    "hiera": ("a0 m0 a1 m1 a2 m2 a2 m2 a3 m3", "fc1 fc2 proj qkv", 32),
    "davit": ("a0 m0 a0 m0 a1 m1 a1 m1 a2 m2 a2 m2 a3 m3 a3 m3", "fc1 fc2 proj qkv", 32),
    "caformer": (
        "a0/NCHW m0/NCHW a1/NCHW m1/NCHW a2 m2 a2 m2 a3 m3",
        "fc1 fc2 proj qkv",
        32,
    ),
    "poolformer": (
        "a0/NCHW m0/NCHW a1/NCHW m1/NCHW a2/NCHW m2/NCHW a2/NCHW m2/NCHW a3/NCHW m3/NCHW",
        "fc1 fc2",
        32,
    ),
    "convnext_nchw": ("m0/NCHW m1/NCHW m2/NCHW m2/NCHW m3/NCHW", "fc1 fc2", 32),
    "convnext_nhwc": ("m0 m1 m2 m2 m3", "fc1 fc2", 32),
    "focalnet": ("m0/NCHW m1/NCHW m2/NCHW m2/NCHW m3/NCHW", "fc1 fc2", 32),
    "tiny_vit": ("a1 m1 a2 m2 a2 m2 a3 m3", "fc1 fc2 proj qkv", 32),
    "nest": ("a0 m0 a1 m1 a2 m2", "fc1 fc2 proj qkv", None),
    "vit": ("a0 m0 a1 m1 a2 m2 a3 m3", "fc1 fc2 proj qkv", 16),
}


@pytest.mark.parametrize("family", EXPECTED)
def test_sites_roles_and_sizes(family):
    info = info_of(family)
    sites, roles, multiple = EXPECTED[family]
    found = [
        f"{site.kind[0]}{site.stage}{'/NCHW' if site.channel_axis == 1 else ''}"
        for site in info.sites
    ]
    assert " ".join(found) == sites
    assert sorted({linear.role for site in info.sites for linear in site.linears}) == roles.split()
    assert info.multiple == multiple


@pytest.mark.parametrize("family", BACKBONES)
def test_a_site_is_as_wide_as_what_it_gives(family):
    """The probe's shapes are those of a real forward."""
    info, seen = info_of(family), {}

    def note(name):
        def hook(module, args, output):
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    adapted = adapt(family, "decoders_only")
    path = adapted.paths["shared"]
    for site in info.sites:
        path.get_submodule(site.name).register_forward_hook(note(site.name))
    adapted(torch.zeros(1, 3, *info.probed_size))
    assert list(seen) == [site.name for site in info.sites]
    for site in info.sites:
        assert seen[site.name].shape[site.channel_axis] == site.width
        assert seen[site.name].numel() == site.tokens * site.width
        assert isinstance(path.get_submodule(site.name), site.layer)


@pytest.mark.parametrize("family", BACKBONES)
def test_the_used_parameters_are_those_that_get_a_gradient(family):
    info = info_of(family)
    size = info.probed_size if info.multiple is None else (info.multiple, 2 * info.multiple)
    adapted = adapt(family, "multitask_full")
    features = adapted(torch.randn(1, 3, *size))["a"]
    sum((f * torch.randn(f.shape)).sum() for f in features).backward()
    path = adapted.paths["shared"]
    got = {name for name, p in path.named_parameters() if p.grad is not None}
    assert got == set(info.parameters)
    assert info.size == sum(path.get_parameter(name).numel() for name in got)
    assert set(info.norms) <= got
    assert not any(name.startswith(unused + ".") for unused in info.unused for name in got)


def test_the_classifier_is_left_out():
    for family in ("swin", "pvtv2", "convnext_nchw", "vit"):
        assert any(name == "head" or name.startswith("head") for name in info_of(family).unused)
        assert not any(name.startswith("head") for name in info_of(family).parameters)


def test_roles_of_swin():
    site = info_of("swin").find("attn")[1]
    assert [
        (linear.name, linear.role, linear.in_features, linear.out_features)
        for linear in site.linears
    ] == [
        ("layers.1.blocks.0.attn.qkv", "qkv", 64, 192),
        ("layers.1.blocks.0.attn.proj", "proj", 64, 64),
    ]
    site = info_of("swin").find("mlp")[1]
    assert [(linear.name.rpartition(".")[2], linear.role) for linear in site.linears] == [
        ("fc1", "fc1"),
        ("fc2", "fc2"),
    ]


def test_a_linear_whose_weight_is_only_read_is_told():
    for family, called in (("swin", True), ("swinv2", False)):
        assert {linear.called for linear in info_of(family).linears(["qkv"])} == {called}


def test_flat_is_said():
    with pytest.warns(UserWarning, match="VisionTransformer is flat: .*stride 16"):
        info = examine(build("vit"))
    assert info.flat and info.reductions == (16,) * 4
    assert not info_of("swin").flat


def test_find_and_linears_say_what_there_is():
    info = info_of("convnext_nchw")
    assert len(info.find("mlp")) == 5
    for kinds in ("attn", "both"):
        with pytest.raises(NoSiteError, match=r"no 'attn' site in ConvNeXt; it has 5 'mlp'.*attn="):
            info.find(kinds)
    with pytest.raises(NoSiteError, match="no 'qkv' linear in ConvNeXt; it has fc1, fc2"):
        info.linears(["fc1", "qkv"])
    both = info_of("swin").find("both")
    assert both == info_of("swin").sites
    bare = dataclasses.replace(info, sites=())
    with pytest.raises(NoSiteError, match="no 'mlp' site in ConvNeXt; it has none"):
        bare.find("mlp")
    with pytest.raises(NoSiteError, match="no 'fc1' linear in ConvNeXt; it has none"):
        bare.linears(["fc1"])


def test_numel_counts_the_named_parameters():
    info = info_of("swin")
    assert info.numel(list(info.parameters)) == info.size
    assert info.numel([]) == 0


@pytest.mark.parametrize("family", BACKBONES)
def test_the_probe_leaves_the_model_untouched(family):
    model = build(family).train()
    for parameter in list(model.parameters())[::3]:
        parameter.requires_grad_(False)
    tensors = [(name, id(t)) for name, t in model.state_dict(keep_vars=True).items()]
    values = [t.clone() for t in model.state_dict().values()]
    modules = [
        (name, type(m), m.training, len(m._forward_hooks), sorted(vars(m)))
        for name, m in model.named_modules()
    ]
    flags = [p.requires_grad for p in model.parameters()]
    torch.manual_seed(7)
    probe(model, family_of(model))
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(after, torch.rand(1))  # nor does it draw random numbers
    assert [(name, id(t)) for name, t in model.state_dict(keep_vars=True).items()] == tensors
    assert all(map(torch.equal, model.state_dict().values(), values))
    assert flags == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert modules == [
        (name, type(m), m.training, len(m._forward_hooks), sorted(vars(m)))
        for name, m in model.named_modules()
    ]


def test_frozen_parameters_are_part_of_the_backbone_all_the_same():
    model = build("swin").requires_grad_(False)
    assert probe(model, family_of(model)).parameters == info_of("swin").parameters
    assert inject(model, "multitask_full").ledger().encoder == info_of("swin").size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_any_floating_type_is_probed(dtype):
    assert examine(build("swin").to(dtype)).sites == info_of("swin").sites


def test_a_model_with_a_graph_left_in_it_is_probed():
    """TinyViT keeps its attention biases of an eval forward, with their graph."""
    model = build("tiny_vit")
    model(image()).sum()
    adapted = inject(model, "shared_lora", tasks=["a"])
    fresh = inject(build("tiny_vit"), "shared_lora", tasks=["a"])
    for a, b in zip(adapted(image())["a"], fresh(image())["a"], strict=True):
        assert torch.equal(a, b)


def test_names_of_a_family_choose_the_sites():
    model = build("swin")
    info = examine(model, dataclasses.replace(family_of(model), mlp=("fc1",), attn=("attn",)))
    assert {site.kind for site in info.sites} == {"attn"}  # fc1 changes the width: no mlp site
    info = examine(model, dataclasses.replace(family_of(model), mlp=(), attn=("mlp",)))
    assert [site.name for site in info.sites] == [s.name for s in info_of("swin").find("mlp")]
    bare = examine(model, dataclasses.replace(family_of(model), mlp=("foo",), attn=()))
    with pytest.raises(NoSiteError, match="No module named 'foo' .*attn, .*mlp"):
        bare.find("mlp")


def test_a_module_called_twice_is_a_site_that_says_so():
    """A branch beside a module that runs twice is one branch for two places."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, 4)
            self.mlp = nn.Conv2d(8, 8, 1)
            self.block = nn.Module()
            self.block.mlp = nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.mlp(self.mlp(self.stem(x)))
            return [self.block.mlp(x)]

    info = examine(Twice())
    assert [(site.name, site.calls) for site in info.sites] == [("mlp", 2), ("block.mlp", 1)]
    assert [info.fits(site) for site in info.sites] == [False, True]
