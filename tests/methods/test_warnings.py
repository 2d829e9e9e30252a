"""Combinations that can hardly train say so, and what to change; those that can are silent."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from peft_dense import DenseModel, inject
from peft_dense.training import Recipe
from peft_dense.training.optimizer import make_optimizer


def net() -> nn.Module:
    return SwinTransformer(
        img_size=32, window_size=2, embed_dim=16, depths=(1, 1), num_heads=(1, 2)
    )


@pytest.mark.parametrize(
    ("name", "hyperparameters", "said"),
    [
        ("polyhistor", {"ratio": 16}, "leaves a bottleneck of one unit at 1 of 2 .* such as 4"),
        ("hyperformer", {"ratio": 16}, "bottleneck of one unit at 2 of 4 sites"),
        ("polyhistor_lite", {"ratio": 16}, "bottleneck of one unit at 1 of 1 sites: the template"),
        (
            "polyhistor",
            {"ratio": 4, "rank": 5},
            "more than the bottleneck.s width at 1 .* Take rank=4",
        ),
        ("polyhistor_lite", {"ratio": 4, "rank": 5}, "rank=5 is more than the bottleneck.s width"),
        ("vmt", {"gate": 1.0}, "gate=1.0 leaves nothing of the latent .* or shared_adapter"),
        ("vmt_lite", {"gate": 1.0, "m": 2}, "vmt_lite: gate=1.0 leaves nothing"),
    ],
)
def test_what_can_hardly_train_is_warned_of(
    name: str, hyperparameters: dict[str, Any], said: str
) -> None:
    with pytest.warns(UserWarning, match=said) as caught:
        adapted = inject(net(), name, tasks=["sal"], **hyperparameters)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert adapted(torch.zeros(1, 3, 32, 32))["sal"]  # a warning, not a refusal


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("polyhistor", {"ratio": 8, "rank": 2}),
        ("hyperformer", {}),
        ("polyhistor_lite", {"rank": 8}),
        ("vmt", {"gate": 0.99}),
        ("vmt", {"gate": 0.0}),
    ],
)
def test_what_can_train_is_not(name: str, hyperparameters: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inject(net(), name, tasks=["sal"], **hyperparameters)


def model(name: str) -> DenseModel:
    return DenseModel(inject(net(), name, tasks=["sal"], ratio=4), {"sal": 1}, width=8)


@pytest.mark.parametrize("name", ["polyhistor", "polyhistor_lite", "hyperformer"])
def test_a_rate_that_turns_the_codes_around_is_warned_of(name: str) -> None:
    said = "a peak rate of 0.1 for .*HyperNetworks? turns the codes .* Take 0.02 or less"
    for recipe in (Recipe(lr=0.1), Recipe(lr=1e-3, adapter_lr=0.1)):
        with pytest.warns(UserWarning, match=said):
            make_optimizer(model(name), recipe)


def test_other_rates_and_other_methods_are_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_optimizer(model("polyhistor"), Recipe(lr=2e-3))
        make_optimizer(model("polyhistor"), Recipe(lr=0.1, adapter_lr=1e-3))
        make_optimizer(model("adapter"), Recipe(lr=0.1))


def decays(name: str, optimizer: str) -> dict[str, float]:
    built = model(name)
    groups = make_optimizer(built, Recipe(optimizer=optimizer, weight_decay=0.1)).param_groups
    of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    return {n: of[id(p)] for n, p in built.named_parameters() if p.requires_grad}


def test_decay_in_the_gradient_spares_hypernetworks_alone() -> None:
    spared = {name for name, decay in decays("polyhistor_lite", "adam").items() if decay == 0}
    assert spared
    assert all(name.startswith("encoder.shared.") for name in spared)
    assert not [name for name, decay in decays("adapter", "adam").items() if decay == 0]
    assert set(decays("polyhistor_lite", "adamw").values()) == {0.1}
