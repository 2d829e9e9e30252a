"""What the trainer does in a few steps is what plain torch does, written out beside it."""

from __future__ import annotations

import copy
import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional as F

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense import DenseModel, inject
from peft_dense.data import Scenes, collate
from peft_dense.tasks import task
from peft_dense.training import Recipe, Trainer
from peft_dense.training.batches import Batches
from peft_dense.training.run_folder import read_weights
from zoo import perturb

TASKS = ("semseg", "human_parts", "sal", "normals", "edge", "depth")
KNOWN = {name: task(name) for name in TASKS}
# Maninis et al., CVPR 2019, and the multi-task work after it.
WEIGHTS = {"semseg": 1, "human_parts": 2, "sal": 5, "normals": 10, "edge": 50, "depth": 1}
MEAN, STD = (0.4, 0.5, 0.6), (0.3, 0.2, 0.25)
STEPS, BATCH, SIZE = 4, 4, (32, 32)
# A quarter of four steps rises, the rest falls.
LINEAR = [1 / 2, 1, 2 / 3, 1 / 3]
COSINE = [1 / 2, 1, 3 / 4, 1 / 4]


class Head(nn.Module):
    """A head without batch norm, which would see parts one by one."""

    def __init__(self, channels: tuple[int, ...], out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(width, out, 1) for width in channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        size = features[0].shape[-2:]
        maps = [layer(x) for layer, x in zip(self.layers, features, strict=True)]
        return torch.stack([F.interpolate(each, size) for each in maps]).sum(0)


def make_model() -> DenseModel:
    torch.manual_seed(0)
    net = SwinTransformer(
        img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2), drop_path_rate=0
    )
    net.pretrained_cfg = {"mean": MEAN, "std": STD}
    encoder = inject(net, "shared_adapter", tasks=TASKS, unfreeze_norms=True)
    perturb(encoder, [p for _, p in encoder.adapter_parameters()])
    return DenseModel(encoder, {name: KNOWN[name].channels for name in TASKS}, Head)


def make_data(length: int, seed: int) -> Scenes:
    scenes = Scenes(length, SIZE, TASKS, seed=seed)
    scenes.transform = None
    return scenes


# ---------------------------------------------------------------------- plain torch


def peaks(model: DenseModel, lr: float, adapter_lr: float, backbone_lr: float) -> dict[str, float]:
    """The peak rate of each parameter that trains, by what it is."""
    adapters = {id(p) for _, p in model.encoder.adapter_parameters()}
    unfrozen = {id(p) for p in model.encoder.parameters_by_kind()["unfrozen_backbone"]}
    assert unfrozen and adapters - unfrozen

    def peak(p: nn.Parameter) -> float:
        if id(p) in unfrozen:
            return backbone_lr
        return adapter_lr if id(p) in adapters else lr

    return {name: peak(p) for name, p in model.named_parameters() if p.requires_grad}


def batches(data: Scenes) -> Iterator[dict[str, Any]]:
    for draws in Batches(len(data), BATCH, STEPS, seed=0):
        yield collate([data[index] for _, index in draws])


def reference(
    model: DenseModel,
    data: Scenes,
    *,
    decoupled: bool,
    decay: float,
    rates: list[float],
    peak: dict[str, float],
    vectors: bool = True,
    clip: float = math.inf,
    ema: float | None = None,
) -> tuple[dict[str, Tensor], list[float]]:
    """Adam (Kingma and Ba, algorithm 1), its decay in the gradient or apart; averages; losses."""
    model.train()
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    first = {name: torch.zeros_like(p) for name, p in weights.items()}
    second = {name: torch.zeros_like(p) for name, p in weights.items()}
    average = {name: p.detach().clone() for name, p in weights.items()}
    losses = []
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    for step, batch in enumerate(batches(data)):
        predictions = model((batch["image"] - mean) / std)
        loss = sum(WEIGHTS[k] * KNOWN[k].loss(predictions[k], batch[k]) for k in TASKS)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
        for (name, p), g in zip(weights.items(), gradients, strict=True):
            rate = rates[step] * peak[name]
            wd = decay if vectors or p.ndim > 1 else 0.0
            with torch.no_grad():
                g = g * min(1.0, clip / norm)
                g = g if decoupled else g + wd * p
                first[name] = 0.9 * first[name] + 0.1 * g
                second[name] = 0.999 * second[name] + 0.001 * g * g
                m = first[name] / (1 - 0.9 ** (step + 1))
                v = second[name] / (1 - 0.999 ** (step + 1))
                p *= 1 - rate * wd * decoupled
                p -= rate * m / (v.sqrt() + 1e-8)
                if ema:
                    share = min(ema, (1 + step) / (10 + step))
                    average[name] = share * average[name] + (1 - share) * p
    found = average if ema else {name: p.detach() for name, p in weights.items()}
    return found, losses


# ---------------------------------------------------------------------- the trainer beside it


@pytest.mark.parametrize(
    ("recipe", "plain"),
    [
        ({}, {}),
        ({"fused": False}, {}),
        ({"optimizer": "adamw"}, {"decoupled": True}),
        ({"weight_decay": 0.0}, {"decay": 0.0}),
        ({"decay_vectors": False}, {"vectors": False}),
        ({"optimizer": "adamw", "decay_vectors": False}, {"decoupled": True, "vectors": False}),
        ({"schedule": "cosine"}, {"rates": COSINE}),
        ({"clip": 0.5}, {"clip": 0.5}),
        ({"ema": 0.9}, {"ema": 0.9}),
        ({"ema": 0.2}, {"ema": 0.2}),
        ({"accumulate": 3}, {}),
        ({"accumulate": 2, "by_path": False, "checkpointing": True}, {}),
        ({"channels_last": True}, {}),
        (
            {"accumulate": 2, "ema": 0.5, "optimizer": "adamw", "clip": 0.5, "schedule": "cosine"},
            {"ema": 0.5, "decoupled": True, "clip": 0.5, "rates": COSINE},
        ),
    ],
    ids=str,
)
def test_steps_are_those_of_plain_torch(
    recipe: dict[str, Any], plain: dict[str, Any], tmp_path: Path
) -> None:
    model, data = make_model(), make_data(9, 1)
    twin = copy.deepcopy(model)
    start = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    rates = {"lr": 2e-3, "adapter_lr": 5e-3, "backbone_lr": 5e-4}
    how: dict[str, Any] = {"decoupled": False, "decay": 0.1, "rates": LINEAR, **plain}
    expected, losses = reference(twin, data, peak=peaks(twin, **rates), **how)

    standard = {"weight_decay": 0.1, "warmup": 0.25, "pictures": 0, "eval_every": STEPS}
    trainer = Trainer(
        model,
        KNOWN,
        data,
        make_data(2, 2),
        Recipe(steps=STEPS, batch=BATCH, **rates, **{**standard, **recipe}),
        tmp_path,
        accelerator=Accelerator(cpu=True),
    )
    trainer.fit()

    kept = read_weights(tmp_path / "last")
    for name, p in model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(p.detach(), expected[name], rtol=0, atol=1e-6, msg=name)
    assert all((expected[name] - value).abs().max() > 1e-4 for name, value in start.items())
    for name, value in model.trainable_state_dict().items():  # the model left is the one kept
        assert torch.equal(kept[name], value), name
    with (tmp_path / "log.csv").open(newline="") as file:
        logged = [float(row[4]) for row in csv.reader(file) if row[1:4] == ["train", "all", "loss"]]
    assert logged == pytest.approx(losses[-1:], rel=1e-5)


def test_by_itself_every_rate_is_lr(tmp_path: Path) -> None:
    """And the loss weights are those of the field."""
    optimizer_groups = Trainer(
        make_model(),
        KNOWN,
        make_data(4, 1),
        make_data(1, 2),
        Recipe(steps=1, lr=0.3),
        tmp_path,
        accelerator=Accelerator(cpu=True),
    ).learner.optimizer.param_groups
    assert {group["peak"] for group in optimizer_groups} == {0.3}
    assert {name: Recipe().weight(name) for name in TASKS} == WEIGHTS
    assert Recipe().weight("a task of one's own") == 1
