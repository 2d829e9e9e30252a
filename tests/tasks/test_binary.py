"""Saliency and edges: balanced cross-entropies and thresholded scores against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks import task


def draw(seed: int, images: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    target = (torch.rand(images, height, width) < torch.rand(images, 1, 1)).long()
    target[torch.rand(target.shape) < 0.2] = 255
    return 2 * torch.randn(images, 1, height, width), target


batches = st.builds(
    draw, st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)
)
few = settings(max_examples=15, deadline=None)


def pixels(prediction: Tensor, target: Tensor) -> list[tuple[float, int]]:
    """Probability and label of every valid pixel."""
    values = prediction.sigmoid().flatten().tolist(), target.flatten().tolist()
    return [(p, y) for p, y in zip(*values, strict=True) if y != 255]


def f_measure(points: list[tuple[float, int]], threshold: float, beta_squared: float) -> float:
    hits = sum(p > threshold and y for p, y in points)
    called, true = sum(p > threshold for p, _ in points), sum(y for _, y in points)
    if not hits:
        return 0.0
    precision, recall = hits / called, hits / true
    return 100 * (1 + beta_squared) * precision * recall / (beta_squared * precision + recall)


def image_iou(points: list[tuple[float, int]], threshold: float) -> float:
    both = sum(p > threshold and y == 1 for p, y in points)
    either = sum(p > threshold or y == 1 for p, y in points)
    return 100 * both / either if either else 100.0


def binary_cost(points: list[tuple[float, int]], weight: float) -> float:
    costs = [weight * -math.log(p) if y else (1 - weight) * -math.log(1 - p) for p, y in points]
    return sum(costs) / max(len(costs), 1)


@few
@given(batches)
def test_saliency_scores_equal_brute_force(batch: tuple[Tensor, Tensor]) -> None:
    prediction, target = batch
    meter = task("sal").meter()
    meter.update(prediction, target)
    found = meter.compute()

    images = [pixels(p, t) for p, t in zip(prediction, target, strict=True)]
    images = [points for points in images if points]
    assume(images)
    means = [
        sum(image_iou(points, 0.2 + 0.05 * step) for points in images) / len(images)
        for step in range(15)
    ]
    points = pixels(prediction, target)
    salient = any(y for _, y in points)
    expected = max(means) if salient else math.nan
    assert found["mIoU"] == pytest.approx(expected, nan_ok=True, abs=1e-4)

    best = max(f_measure(points, step / 255, 0.3) for step in range(255))
    expected = best if salient else math.nan
    assert found["maxF"] == pytest.approx(expected, nan_ok=True, abs=1e-4)


@few
@given(batches)
def test_edge_f_equals_brute_force(batch: tuple[Tensor, Tensor]) -> None:
    prediction, target = batch
    meter = task("edge").meter()
    meter.update(prediction, target)
    points = pixels(prediction, target)
    best = max(f_measure(points, step / 100, 1.0) for step in range(1, 100))
    expected = best if any(y for _, y in points) else math.nan
    assert meter.compute() == pytest.approx({"F": expected}, nan_ok=True, abs=1e-4)


@few
@given(batches, st.floats(0.05, 0.99))
def test_losses_are_weighted_means_of_log_probabilities(
    batch: tuple[Tensor, Tensor], weight: float
) -> None:
    prediction, target = batch
    points = pixels(prediction, target)
    edge = task("edge", positive_weight=weight).loss(prediction, target)
    assert edge.item() == pytest.approx(binary_cost(points, weight), rel=1e-4, abs=1e-6)
    negatives = sum(y == 0 for _, y in points) / max(len(points), 1)
    sal = task("sal").loss(prediction, target)
    assert sal.item() == pytest.approx(binary_cost(points, negatives), rel=1e-4, abs=1e-6)


def test_salient_and_other_pixels_weigh_the_same_in_all() -> None:
    target = torch.zeros(1, 5, 8, dtype=torch.int64)
    target[0, 0, :4] = 1
    logits = torch.zeros(1, 1, 5, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(task("sal").loss(logits, target), logits)
    pull = gradient[0, 0][target[0] == 1].sum(), gradient[0, 0][target[0] == 0].sum()
    assert pull[0].item() == pytest.approx(-pull[1].item()) and pull[1] > 0


def test_an_image_without_foreground_is_right_when_nothing_is_marked() -> None:
    both = torch.zeros(2, 4, 4, dtype=torch.int64)
    both[0] = 1  # found, whatever the other image says
    for logit, expected in ((-9.0, 100.0), (9.0, 50.0)):
        logits = torch.full((2, 1, 4, 4), logit)
        logits[0] = 9.0
        meter = task("sal").meter()
        meter.update(logits, both)
        assert meter.compute()["mIoU"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sal", "edge", "roofs"])
@pytest.mark.parametrize("ignored", [False, True])
def test_without_any_foreground_there_is_no_score(name: str, ignored: bool) -> None:
    """Masks of 0 and 255 that were read as ignored once gave 100."""
    kind = task(name, kind="edge" if name == "edge" else "binary")
    target = torch.zeros(2, 8, 8, dtype=torch.int64)
    target[:, :4] = 255 if ignored else 0
    for logit in (-9.0, 9.0):
        meter = kind.meter()
        meter.update(torch.full((2, 1, 8, 8), logit), target)
        assert all(math.isnan(value) for value in meter.compute().values())


@few
@given(batches)
def test_marks_of_a_task_of_ones_own_are_scored_at_a_half(batch: tuple[Tensor, Tensor]) -> None:
    prediction, target = batch
    roofs = task("roofs", kind="binary")
    meter = roofs.meter()
    meter.update(prediction, target)
    points = pixels(prediction, target)
    both = sum(p > 0.5 and y for p, y in points)
    either = sum(p > 0.5 or y for p, y in points)
    true = sum(y for _, y in points)
    called = sum(p > 0.5 for p, _ in points)
    expected = {
        "IoU": 100 * both / either if true else math.nan,
        "F": f_measure(points, 0.5, 1.0) if true else math.nan,
        "precision": 100 * both / max(called, 1) if true else math.nan,
        "recall": 100 * both / true if true else math.nan,
    }
    assert meter.compute() == pytest.approx(expected, nan_ok=True, abs=1e-4)
    plain = 2 * binary_cost(points, 0.5)
    assert roofs.loss(prediction, target).item() == pytest.approx(plain, rel=1e-4, abs=1e-6)


def test_edge_weight_is_95_of_100_by_default() -> None:
    logits, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, dtype=torch.int64)
    edge = task("edge")
    assert edge.loss(logits, one).item() == pytest.approx(0.95 * math.log(2))
    assert edge.loss(logits, 0 * one).item() == pytest.approx(0.05 * math.log(2))
    for weight in (0.0, 1.0, 20.0):
        with pytest.raises(
            HyperparameterError, match=f"positive_weight={weight}; expected a share"
        ):
            task("edge", positive_weight=weight)


@pytest.mark.parametrize("name", ["sal", "edge"])
def test_labels_are_marks_and_predictions_one_channel(name: str) -> None:
    marks = torch.tensor([[[True, False]]])
    logits = torch.tensor([[[[1.0, -2.0]]]])
    assert task(name).loss(logits, marks) == task(name).loss(logits, marks.long())
    with pytest.raises(ShapeError, match=f"{name} target holds 128; expected 0 to 1, or 255"):
        task(name).loss(logits, torch.tensor([[[128, 255]]]))
    with pytest.raises(HyperparameterError, match=f"{name} got channels=2; expected 1"):
        task(name, channels=2)
