"""Small models of many families: what passes inject runs, and starts as the backbone was."""

from __future__ import annotations

import functools
import warnings

import pytest
import torch
from torch import nn

from choice import over
from peft_dense import AdaptedBackbone, inject
from peft_dense.backbones import BackboneInfo, examine
from peft_dense.errors import HyperparameterError, NoSiteError
from peft_dense.methods import method as make_method
from zoo import MORE, build

METHODS = ("vmt_lite", "shared_lora", "ssf")

# Why a method finds no place: the first words of what it says.
NO_MLP = "no 'mlp' site"
NONE_FITS = "vmt_lite adds each layer's part to its stage output, but none"
REASONS = {
    "efficientvit_m": NO_MLP,
    "mobilevitv2": NONE_FITS,
    "swiftformer": NO_MLP,
    "mobilenet": NO_MLP,
    "resnet": NO_MLP,
    "torchvision_resnet": NO_MLP,
    "torchvision_regnet": NO_MLP,
    "Swinv2Backbone": NO_MLP,
    "ConvNextBackbone": NO_MLP,
    "smp_resnet18": NO_MLP,
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


@functools.cache
def probed(family: str) -> tuple[nn.Module, BackboneInfo]:
    model = build(family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model, examine(model)


def adapted(family: str, name: str) -> AdaptedBackbone:
    model, info = probed(family)
    return AdaptedBackbone(model, make_method(name).resolve(info), ["a", "b"], info)


def sizes(info: BackboneInfo) -> list[tuple[int, int]]:
    if info.multiple is None or info.multiple > 100:
        return [info.probed_size]
    return [(2 * info.multiple, 3 * info.multiple)]


@over(MORE, METHODS)
def test_what_passes_inject_runs_and_starts_as_the_backbone(family, name):
    _, info = probed(family)
    try:
        ours = adapted(family, name)
    except (NoSiteError, HyperparameterError):
        return
    plain = adapted(family, "decoders_only")
    for size in sizes(info):
        x = torch.randn(1, info.in_channels, *size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            found, expected = ours(x), plain(x)["a"]
        for task in "ab":
            for a, b, channels, stride in zip(
                found[task], expected, info.channels, info.reductions, strict=True
            ):
                assert a.isfinite().all()
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
                assert a.shape[1] == channels
                if size != info.probed_size:
                    assert a.shape[2:] == tuple(-(-side // stride) for side in size)


@pytest.mark.parametrize("family", MORE)
def test_vmt_works_on_it_or_says_why_not(family):
    _, info = probed(family)
    if family in REASONS:
        with pytest.raises(NoSiteError, match=REASONS[family]):
            make_method("vmt_lite").resolve(info)
    else:
        make_method("vmt_lite").resolve(info)


@pytest.mark.parametrize("family", MORE)
def test_the_stages_are_what_the_model_gives_at_its_own_size(family):
    """The tap applies what was found: maps of the widths and sizes that the probe says."""
    _, info = probed(family)
    plain = adapted(family, "decoders_only")
    x = torch.zeros(2, info.in_channels, *info.probed_size)
    with torch.no_grad():
        maps = plain(x)["a"]
    assert [tuple(y.shape) for y in maps] == [
        (2, channels, *grid) for channels, grid in zip(info.channels, info.grids, strict=True)
    ]
    # Finest first, but for CrossViT's two branches, which take turns.
    if family != "crossvit":
        assert list(info.reductions) == sorted(info.reductions)


@pytest.mark.parametrize("family", MORE)
def test_training_reaches_every_stage(family):
    """Each adapter beside a feed-forward part moves some stage once it is not zero."""
    _, info = probed(family)
    try:
        ours = adapted(family, "shared_adapter")
    except (NoSiteError, HyperparameterError):
        return
    ours.train(False)
    x = torch.randn(1, info.in_channels, *info.probed_size)
    parameters = dict(ours.adapter_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05)
    loss = sum(y.square().mean() for y in ours(x)["a"])
    grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    assert not [name for name, g in zip(parameters, grads, strict=True) if g is None]


class Chain(nn.Sequential):
    """A model that is a container itself: it runs all it holds, one after another."""

    def forward(self, x):
        maps = [x := layer(x) for layer in self]
        return {"maps": maps[:2]}


def test_a_model_that_is_a_container_itself():
    layers = {"stem": nn.Conv2d(3, 8, 4, 4), "mlp": nn.Conv2d(8, 8, 1)}
    model = Chain()
    for name, layer in layers.items():
        model.add_module(name, layer)
    x = torch.randn(1, 3, 32, 32)
    ours = inject(model, "vmt_lite", tasks=["a"])
    torch.testing.assert_close(ours(x)["a"][-1], model(x)["maps"][-1])
