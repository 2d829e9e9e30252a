"""What turns a model into scores, held against what a reader can do by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from peft_dense.predicting import normalise
from peft_dense.tasks import task
from peft_dense.training import Recipe, evaluate


class Fixed(nn.Module):
    """A model that predicts what it is given."""

    def __init__(self, prediction: Tensor, about: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.prediction = prediction
        self.scale = nn.Parameter(torch.ones(()))
        self.tasks = ("depth",)
        self.encoder = nn.Module()
        original = nn.Module()
        if about is not None:
            original.pretrained_cfg = about  # type: ignore[assignment]
        self.encoder.eject = lambda: original  # type: ignore[assignment]

    def forward(self, images: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        return {"depth": self.prediction.expand(len(images), -1, -1, -1)}


class One:
    """One item with a depth label."""

    tasks = ("depth",)
    transform = None

    def __init__(self, depth: Tensor) -> None:
        self.depth = depth

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.zeros(3, *self.depth.shape[-2:])
        return {"image": image, "depth": self.depth, "meta": {"id": "a"}}


def test_a_prediction_is_scaled_up_by_pixel_areas_not_by_corners() -> None:
    """Two pixels 1 and 3 over four are 1, 1.5, 2.5, 3; by their corners they'd be 1, 1.67 ..."""
    small = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]])
    label = torch.tensor([1.0, 1.5, 2.5, 3.0]).expand(1, 4, 4)
    scores = evaluate(Fixed(small), {"depth": task("depth")}, One(label))["depth"]  # type: ignore[arg-type]
    assert scores["rmse"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("about", "mean", "std"),
    [
        (None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({}, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)}, (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)),
    ],
)
def test_images_are_normalised_as_the_backbone_was_pretrained(
    about: dict[str, Any] | None, mean: Sequence[float], std: Sequence[float]
) -> None:
    images = torch.rand(2, 3, 4, 4)
    found = normalise(Fixed(torch.zeros(1, 1, 1, 1), about), images)  # type: ignore[arg-type]
    for channel in range(3):
        expected = (images[:, channel] - mean[channel]) / std[channel]
        assert_close(found[:, channel], expected)


def test_losses_weigh_as_the_field_weighs_them() -> None:
    """Normals count ten times, saliency five, edges fifty (ASTMT; MTI-Net)."""
    weights = Recipe().loss_weights
    assert {name: Recipe().weight(name) for name in weights} == weights
    expected = {"semseg": 1, "human_parts": 2, "sal": 5, "normals": 10, "edge": 50}
    assert {name: weights.get(name, 1) for name in expected} == expected
