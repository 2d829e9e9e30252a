"""However a batch is spread over parts and paths, the gradients are those of one piece."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("accelerate")

from peft_dense import DenseModel, inject
from peft_dense.data import Scenes, collate
from peft_dense.tasks import task
from peft_dense.training import Recipe
from peft_dense.training.step import backward
from zoo import perturb

TASKS = ("semseg", "human_parts", "sal", "normals", "depth", "edge")
KNOWN = {name: task(name) for name in TASKS}


class Plain(nn.Module):
    """A head without batch norm, which would see parts one by one."""

    def __init__(self, channels: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(width, out, 1) for width in channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        maps = [layer(x) for layer, x in zip(self.layers, features, strict=True)]
        return torch.stack([F.interpolate(each, size) for each in maps]).sum(0)


def make_model(method: str) -> DenseModel:
    torch.manual_seed(0)
    net = SwinTransformer(
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
        drop_path_rate=0,  # which draws for each piece
    )
    encoder = inject(net, method, tasks=TASKS)
    perturb(encoder, [p for _, p in encoder.adapter_parameters()])
    return DenseModel(encoder, {name: KNOWN[name].channels for name in TASKS}, Plain).train()


def make_batch() -> dict[str, Any]:
    scenes = Scenes(5, (32, 32), TASKS, seed=3)
    batch = collate([scenes[index] for index in range(5)])
    batch["human_parts"][1:] = 255  # one image has parts, and few of its pixels
    batch["sal"][0, 5:] = 255
    batch["semseg"][:] = 255  # a task without any label
    return batch


def gradients(method: str, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, float]]:
    model = make_model(method)
    if recipe.checkpointing:
        model.encoder.set_grad_checkpointing()
    losses = backward(model, KNOWN, make_batch(), recipe)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found, {name: loss.item() for name, loss in losses.items()}


@pytest.mark.parametrize("method", ["vmt_lite", "polyhistor_lite", "lora"])
@pytest.mark.parametrize(
    "spread",
    [
        {"accumulate": 2},
        {"accumulate": 5},
        {"by_path": False},
        {"accumulate": 3, "by_path": False},
        {"checkpointing": True},
    ],
    ids=str,
)
def test_pieces_add_up(method: str, spread: dict[str, Any]) -> None:
    expected, losses = gradients(method, Recipe())
    found, pieces = gradients(method, Recipe(**spread))
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * largest.item())
    assert pieces == pytest.approx(losses, rel=1e-4)
    assert losses["semseg"] == 0 and min(v for k, v in losses.items() if k != "semseg") > 0


def test_weights_scale_a_tasks_gradient() -> None:
    once, _ = gradients("lora", Recipe(loss_weights=dict.fromkeys(TASKS, 1.0)))
    twice, _ = gradients("lora", Recipe(loss_weights={"depth": 2.0}))
    for name, gradient in once.items():
        factor = 2 if ".depth." in name else 1
        torch.testing.assert_close(twice[name], factor * gradient, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_near() -> None:
    model = make_model("vmt_lite")
    losses = backward(model, KNOWN, make_batch(), Recipe(bf16=True))
    _, expected = gradients("vmt_lite", Recipe())
    found = {name: loss.item() for name, loss in losses.items()}
    assert found != expected and found == pytest.approx(expected, rel=0.05)
