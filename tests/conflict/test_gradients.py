"""Angles between gradients against gradients written by hand and against finite steps."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.testing import assert_close

from peft_dense import DenseModel, inject
from peft_dense.conflict import conflict, shared_layers
from peft_dense.errors import (
    HyperparameterError,
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
)
from peft_dense.methods import methods
from zoo import image, perturb

TASKS = ("a", "b.c", "keys")


@functools.cache
def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, window_size=4, embed_dim=32, depths=(1, 1), num_heads=(1, 2), num_classes=3
    ).eval()


def dense(name: str) -> DenseModel:
    torch.manual_seed(0)
    model = DenseModel(inject(swin(), name, tasks=TASKS), dict.fromkeys(TASKS, 2), width=8)
    perturb(model, [p for p in model.parameters() if p.requires_grad], 0.05)
    return model.eval()


def losses_of(model: DenseModel) -> dict[str, torch.Tensor]:
    made = model(image(1, 32))
    return {task: (p - i).square().mean() for i, (task, p) in enumerate(made.items())}


def two_layers(seed: int) -> tuple[dict[str, list[nn.Parameter]], dict[str, torch.Tensor]]:
    """Layers w and v; task t's loss is x_t . w + (y_t . v)^2 / 2, so g_t = (x_t, (y_t . v) y_t)."""
    torch.manual_seed(seed)
    w, v = (nn.Parameter(torch.randn(5, dtype=torch.double)) for _ in range(2))
    return {"w": [w], "v": [v]}, {t: torch.randn(2, 5, dtype=torch.double) for t in TASKS}


def linear_losses(layers, data) -> dict[str, torch.Tensor]:
    (w,), (v,) = layers.values()
    return {task: x @ w + (y @ v) ** 2 / 2 for task, (x, y) in data.items()}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_linear_problem_by_hand(seed):
    layers, data = two_layers(seed)
    report = conflict(linear_losses(layers, data), layers)
    by_hand = {
        "w": [x for x, _ in data.values()],
        "v": [(y @ layers["v"][0].detach()) * y for _, y in data.values()],
    }
    by_hand[None] = [torch.cat(parts) for parts in zip(by_hand["w"], by_hand["v"], strict=True)]
    for layer, gradients in by_hand.items():
        for i, one in enumerate(gradients):
            for j, other in enumerate(gradients):
                cosine = one @ other / (one.norm() * other.norm())
                assert_close(report.dot(layer)[i, j], one @ other)
                assert_close(report.cosine(layer)[i, j], cosine)
                degrees = cosine.clamp(-1, 1).acos() * 180 / torch.pi
                assert_close(report.angle(layer)[i, j], degrees, atol=1e-5, rtol=0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_a_small_step_changes_the_other_losses_as_equation_7_says(seed):
    layers, data = two_layers(seed)
    before, size = linear_losses(layers, data), 1e-5
    report = conflict(before, layers)
    for i, task in enumerate(TASKS):
        flat = [p for members in layers.values() for p in members]
        gradients = torch.autograd.grad(before[task], flat, retain_graph=True)
        length = torch.cat(gradients).norm()
        after = linear_losses(
            {k: [p - size * g / length] for k, p, g in zip(layers, flat, gradients, strict=True)},
            data,
        )
        change = torch.stack([after[other] - before[other] for other in TASKS])
        assert_close(change, report.effect(size)[i], atol=1e-8, rtol=0)


def test_laws_of_the_angle():
    model = dense("vmt_lite")
    report = conflict(losses_of(model), model)
    for layer in (None, *report.layers):
        cosine = report.cosine(layer)
        assert_close(cosine.diagonal(), torch.ones(3, dtype=torch.double))
        assert_close(cosine, cosine.T)
        assert cosine.abs().max() <= 1
    assert_close(sum(report.dot(layer) for layer in report.layers), report.dot())
    assert 1 < report.angle()[0, 1] < 179


def test_orthogonal_opposite_and_zero_gradients():
    w, unused = (nn.Parameter(torch.ones(2)) for _ in range(2))
    losses = {"right": w[0], "up": w[1], "left": -3 * w[0], "none": 0 * w.sum()}
    report = conflict(losses, {"w": [w], "unused": [unused]})
    angle = report.angle()
    assert angle[0, 1] == angle[1, 2] == 90 and angle[0, 2] == 180 and angle[0, 0] == 0
    assert angle[3].isnan().all() and angle[:, 3].isnan().all()
    assert report.angle("unused").isnan().all()
    assert report.pairs[:2] == [("right", "up"), ("right", "left")]
    assert str(report).splitlines()[0].split() == ["right", "up", "90.0", "degrees"]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_size_of_a_loss_is_of_no_matter(scale):
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    report = conflict({"a": scale * w.sum(), "b": w[0]}, {"w": [w]})
    assert_close(report.angle()[0, 1].item(), 45.0)


# ------------------------------------------------------------------------------ in training


@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor_lite", "multitask_full"])
def test_no_gradient_is_touched_and_the_graph_stays(name):
    model = dense(name)
    losses = losses_of(model)
    conflict(losses, model)
    assert all(p.grad is None for p in model.parameters())
    sum(losses.values()).backward()
    plain = {key: p.grad.clone() for key, p in model.named_parameters() if p.requires_grad}
    conflict(losses_of(model), model)
    assert all(torch.equal(p.grad, plain[k]) for k, p in model.named_parameters() if k in plain)


@pytest.mark.parametrize("name", ["vmt_lite", "polyhistor_lite", "multitask_full"])
def test_accumulate_is_the_plain_backward(name):
    model = dense(name)
    before = losses_of(model)
    sum(before.values()).backward()
    report = conflict(before := losses_of(model), model)
    plain = {key: 2 * p.grad for key, p in model.named_parameters() if p.requires_grad}
    same = conflict(before, model, accumulate=True)  # on top of what is there
    assert_close(same.dots, report.dots)
    for key, parameter in model.named_parameters():
        if key in plain:
            assert_close(parameter.grad, plain[key], atol=1e-5, rtol=1e-4)
        else:
            assert parameter.grad is None
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        sum(before.values()).backward()


def test_gradient_checkpointing_changes_nothing():
    model = dense("vmt_lite")
    expected = conflict(losses_of(model), model)
    model.encoder.set_grad_checkpointing()
    assert_close(conflict(losses_of(model), model).dots, expected.dots)
    assert_close(conflict(losses_of(model), model, accumulate=True).dots, expected.dots)


def test_one_forward_and_one_backward_a_task():
    model = dense("shared_adapter")
    losses, calls = losses_of(model), []
    model.encoder.paths["shared"].register_forward_hook(lambda *_: calls.append("forward"))
    layers = shared_layers(model)
    for layer, members in layers.items():
        members[0].register_hook(lambda _, layer=layer: calls.append(layer))
    conflict(losses, model)
    assert sorted(calls) == sorted([*layers] * len(TASKS))


# ------------------------------------------------------------------------------ what is shared


@pytest.mark.parametrize("name", methods())
def test_every_shared_parameter_is_in_one_layer(name):
    encoder = inject(swin(), name, tasks=TASKS)
    kinds = encoder.parameters_by_kind()
    expected = kinds["shared"] + (kinds["unfrozen_backbone"] if encoder.method.one_path else [])
    if not expected:
        with pytest.raises(UnsupportedModelError, match=f"with {name} on .* share nothing that"):
            shared_layers(encoder)
        return
    found = [p for members in shared_layers(encoder).values() for p in members]
    assert sorted(map(id, found)) == sorted(map(id, expected))


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("shared_adapter", "adapters.layers.0.blocks.0.mlp.branch", 2),
        ("vmt", "adapters.layers.0.blocks.0.mlp.branch", 2),
        ("shared_lora", "layers.0.blocks.0.attn.qkv", 2),
        ("multitask_full", "patch_embed.proj", None),
        ("polyhistor", "shared.blocks.0", 2),
    ],
)
def test_layers_are_adapters_generators_or_owners(name, first, count):
    layers = shared_layers(inject(swin(), name, tasks=TASKS))
    assert next(iter(layers)) == first
    assert count in (None, len(layers))


def test_frozen_adapters_are_left_out():
    encoder = inject(swin(), "shared_adapter", tasks=TASKS)
    name, *rest = shared_layers(encoder)
    encoder.paths["shared"].get_submodule(name).requires_grad_(False)
    assert list(shared_layers(encoder)) == rest


# ------------------------------------------------------------------------------ bad input


def test_wrong_input():
    w = nn.Parameter(torch.ones(2))
    good = {"a": w[0], "b": w[1]}
    with pytest.raises(
        HyperparameterError, match="an angle needs two tasks or more, and there are losses of 1"
    ):
        conflict({"a": w[0]}, {"w": [w]})
    with pytest.raises(ShapeError, match=r"loss of 'b' has shape \(2,\), with a graph; expected"):
        conflict(good | {"b": w * 2}, {"w": [w]})
    with pytest.raises(ShapeError, match=r"loss of 'b' has shape \(\), without a graph"):
        conflict(good | {"b": w[0].detach()}, {"w": [w]})
    with pytest.raises(HyperparameterError, match=r"layer 'v', shape \(2,\), is given twice"):
        conflict(good, {"w": [w], "v": [w]})
    with pytest.raises(HyperparameterError, match=r"layer 'w', shape \(1,\), doesn't train"):
        conflict(good, {"w": [torch.ones(1)]})
    with pytest.raises(HyperparameterError, match="layer 'w' has no parameters"):
        conflict(good, {"w": []})
    with pytest.raises(HyperparameterError, match="no parameters to measure"):
        conflict(good, {})
    with pytest.raises(UnsupportedModelError, match=r"Linear isn't a DenseModel .* unwrap it"):
        conflict(good, nn.Linear(1, 1))
    with pytest.raises(UnknownNameError, match="unknown layer 'x'.* Known: w"):
        conflict(good, {"w": [w]}).angle("x")
