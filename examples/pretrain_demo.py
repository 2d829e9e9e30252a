#!/usr/bin/env python
"""Pretrain the demo's small Swin on rendered scenes, without a label of any of the demo's tasks.

    python examples/pretrain_demo.py --out examples/demo_backbone.safetensors

Each scene is rendered twice, in other textures, colours and light, and two crops of the two
pictures (mirrored or not) are the views. Two signals, and no other, reach the backbone:

- contrast: a point of the scene should have the same feature in both views, and another one than
  all other points of the batch (InfoNCE: van den Oord et al., "Representation Learning with
  Contrastive Predictive Coding", 2018, equation 4; on pixels: Pinheiro et al., "Unsupervised
  Learning of Dense Visual Representations", NeurIPS 2020). Where a point of one view lies in the
  other is known from the crops.
- kinds: whether there is a box, a sphere, a cylinder, a person in the picture, not where: 1 -
  exp(-sum of densities over all places).

The scenes have another look than the demo's (`peft_dense.data.made.looks`): one thing or two near
the camera, other textures and light, and no cones. The file holds the backbone's parameters in half
precision.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from peft_dense.cli.output import exit_status
from peft_dense.data import Scenes
from peft_dense.training import Setup, make_backbone

SIZE = (72, 72)  # of a picture
VIEW = (64, 64)
KINDS = ("box", "sphere", "cylinder", "person")
TEMPERATURE = 0.15
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation, as in training
CLOSE = 6  # pixels; nearer points of a scene aren't held apart


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--contrast", type=float, default=0.3, help="weight of the contrast")
    parser.add_argument("--scenes", type=int, default=6000, help="scenes, rendered twice each")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=64, help="scenes a step")
    parser.add_argument("--points", type=int, default=16, help="points of a scene and step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="autocast to bfloat16"
    )
    return parser.parse_args(argv)


def render(scenes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Give bytes (N, 2, 3, H, W), each scene in two paints, and what is there (N, kinds)."""
    # The demo's own seeds are small; equal ones would put things in like places.
    data = Scenes(scenes, SIZE, seed=1_000_000 + seed, look="pretraining")
    images = torch.empty(scenes, 2, 3, *SIZE, dtype=torch.uint8)
    there = torch.empty(scenes, len(KINDS))
    for index in tqdm(range(scenes), "rendering", disable=None):
        views, things = data.views(index, 2)
        images[index] = (torch.stack(views) * 255).round()
        there[index] = torch.tensor([float(things[kind] > 0) for kind in KINDS])
    return images, there


class Crops:
    """One random crop per picture, which knows where the scene's points lie in it.

    A point (x, y) of a picture, -1 to 1 from border to border, lies at ((x, y) - shift) / scale.
    """

    def __init__(self, number: int) -> None:
        size = 0.65 + 0.35 * torch.rand(number, 1)
        self.size = (size * (0.85 + 0.3 * torch.rand(number, 2))).clamp(max=1)
        self.shift = (2 * torch.rand(number, 2) - 1) * (1 - self.size)
        mirror = torch.tensor([-1.0, 1.0])[torch.randint(2, (number,))]
        self.scale = torch.stack([mirror * self.size[:, 0], self.size[:, 1]], 1)

    def cut(self, images: Tensor) -> Tensor:
        moves = torch.cat([torch.diag_embed(self.scale), self.shift[..., None]], 2)
        grid = F.affine_grid(moves, [*images.shape[:2], *VIEW], align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def places(self, points: Tensor) -> Tensor:
        return (points - self.shift[:, None]) / self.scale[:, None]


def common_points(a: Crops, b: Crops, number: int) -> Tensor:
    """Draw points (B, number, 2) of the pictures that both crops hold."""
    low = torch.maximum(a.shift - a.size, b.shift - b.size)[:, None]
    high = torch.minimum(a.shift + a.size, b.shift + b.size)[:, None]
    return low + (high - low) * torch.rand(len(low), number, 2)


class Heads(nn.Module):
    """What reads the stages while pretraining, and is dropped afterwards."""

    def __init__(self, channels: Sequence[int], width: int = 128) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(each) for each in channels)
        self.project = nn.ModuleList(nn.Linear(each, width) for each in channels)
        self.point = nn.Sequential(nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 64))
        self.density = nn.ModuleList(nn.Linear(each, len(KINDS)) for each in channels[-2:])
        for layer in self.density:
            nn.init.constant_(layer.bias, -3.5)  # some twenty places, half a thing of a kind

    def at(self, stages: Sequence[Tensor], places: Tensor) -> Tensor:
        """Give unit features (B P, 64) at places (B, P, 2) of the views."""
        total = torch.zeros(())
        for stage, norm, project in zip(stages, self.norms, self.project, strict=True):
            found = F.grid_sample(
                stage.float(), places[:, :, None], padding_mode="border", align_corners=False
            )
            total = total + project(norm(found[..., 0].transpose(1, 2)))
        return F.normalize(self.point(total.flatten(0, 1)), dim=1)

    def kinds(self, stages: Sequence[Tensor]) -> Tensor:
        """Give the probability (B, kinds) that a thing of each kind is there."""
        total = torch.zeros(())
        for stage, norm, density in zip(stages[-2:], self.norms[-2:], self.density, strict=True):
            total = total + F.softplus(density(norm(stage.float().movedim(1, -1)))).sum((1, 2))
        return -torch.expm1(-total.clamp(1e-4, 20))


def contrast(one: Tensor, other: Tensor, points: Tensor) -> Tensor:
    """Give InfoNCE between the features (B P, C) of the same points (B, P, 2) in two views."""
    pixels = points * torch.tensor([SIZE[1] / 2, SIZE[0] / 2])
    near = (pixels[:, :, None] - pixels[:, None]).norm(dim=-1) < CLOSE
    near &= ~torch.eye(points.shape[1], dtype=torch.bool)
    left_out = torch.block_diag(*near.float()).bool()
    logits = (one @ other.T / TEMPERATURE).masked_fill(left_out, -1e4)
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def disturb(images: Tensor) -> Tensor:
    """Change the channels' brightness, and add noise."""
    gain = 0.7 + 0.6 * torch.rand(len(images), 3, 1, 1)
    noise = 0.03 * torch.rand(len(images), 1, 1, 1) * torch.randn(images.shape)
    return images * gain + noise


def pretrain(options: argparse.Namespace, images: Tensor, there: Tensor) -> nn.Module:
    """Train a new backbone on rendered scenes: AdamW, a short warm-up, a cosine's fall to 0."""
    torch.manual_seed(options.seed)
    net: Any = make_backbone(Setup(pretrained=False, drop_path=0.0))
    net.set_input_size(img_size=VIEW, window_size=4, always_partition=True)  # keeps every table
    with torch.no_grad():
        stages = net.forward_intermediates(torch.zeros(1, 3, *VIEW), intermediates_only=True)
    heads = Heads([stage.shape[1] for stage in stages])
    learning = [p for p in (*net.parameters(), *heads.parameters()) if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.lr)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(
            (step + 1) / min(100, options.steps),
            (1 + math.cos(math.pi * step / options.steps)) / 2,
        ),
    )
    mean, deviation = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    begun, order = time.time(), torch.empty(0, dtype=torch.int64)
    for step in range(options.steps):
        if len(order) < options.batch:
            order = torch.cat([order, torch.randperm(len(images))])
        chosen, order = order.split([options.batch, len(order) - options.batch])
        pictures = images[chosen].float() / 255
        crops = Crops(len(chosen)), Crops(len(chosen))
        points = common_points(*crops, options.points)
        views = torch.cat([crop.cut(pictures[:, i]) for i, crop in enumerate(crops)])
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            stages = net.forward_intermediates(
                (disturb(views) - mean) / deviation, intermediates_only=True
            )
        places = torch.cat([crop.places(points) for crop in crops])
        apart = contrast(*heads.at(stages, places).chunk(2), points)
        named = F.binary_cross_entropy(heads.kinds(stages), there[chosen].repeat(2, 1))
        optimizer.zero_grad()
        (named + options.contrast * apart).backward()
        nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        rate.step()
        if (step + 1) % max(1, options.steps // 20) == 0:
            print(
                f"step {step + 1} of {options.steps}, {time.time() - begun:.0f} s: "
                f"contrast {apart.item():.2f}, kinds {named.item():.2f}",
                flush=True,
            )
    return net


def save(net: nn.Module, path: Path, about: str) -> None:
    """Write the parameters in half precision, beside the place first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().half().contiguous() for name, p in net.named_parameters()}
    beside = path.with_name(f".{path.name}.new")
    save_file(tensors, beside, {"made by": about})
    os.replace(beside, path)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    images, there = render(options.scenes, options.seed)
    net = pretrain(options, images, there)
    said = (f"--{k.replace('_', '-')} {v}" for k, v in vars(options).items() if k != "out")
    save(net, options.out, f"examples/pretrain_demo.py {' '.join(said)}")
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.exit(exit_status(main))
