"""Depth: L1 and errors against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks import task

LIMITS = (1.25, 1.5625, 1.953125)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 6))
def test_loss_and_scores_equal_loops(seed: int, height: int, width: int) -> None:
    torch.manual_seed(seed)
    prediction = 3 * torch.rand(2, 1, height, width) - 0.3
    target = 0.1 + 3 * torch.rand(2, 1, height, width)
    target[torch.rand(target.shape) < 0.3] = 0
    pairs = zip(prediction.flatten().tolist(), target.flatten().tolist(), strict=True)
    pairs = [(p, t) for p, t in pairs if t != 0]
    count = len(pairs)

    depth = task("depth")
    expected = sum(abs(p - t) for p, t in pairs) / max(count, 1)
    assert depth.loss(prediction, target).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(depth.loss(prediction, target[:, 0]), depth.loss(prediction, target))
    if count:
        meter = depth.meter()
        meter.update(prediction, target)
        off = [max(p / t, t / p) if p > 0 else math.inf for p, t in pairs]
        near = [100 * sum(each < limit for each in off) / count for limit in LIMITS]
        assert meter.compute() == pytest.approx(
            {
                "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / count),
                "abs_rel": sum(abs(p - t) / t for p, t in pairs) / count,
                "delta_1.25": near[0],
                "delta_1.25^2": near[1],
                "delta_1.25^3": near[2],
            },
            rel=1e-4,
        )


def test_depth_that_is_zero_or_not_finite_is_ignored() -> None:
    target = torch.tensor([[[2.0, 0.0, math.nan, math.inf, -math.inf]]])
    prediction = torch.full((1, 1, 1, 5), 3.0, requires_grad=True)
    loss = task("depth").loss(prediction, target)
    loss.backward()
    assert loss == 1
    assert prediction.grad is not None and prediction.grad.flatten().tolist() == [1, 0, 0, 0, 0]


def test_impossible_depths_are_refused() -> None:
    prediction = torch.ones(1, 1, 1, 2)
    with pytest.raises(ShapeError, match="depth target holds -2; expected positive"):
        task("depth").loss(prediction, torch.tensor([[[1.0, -2.0]]]))
    with pytest.raises(ShapeError, match=r"got \(1, 2, 1, 2\) of torch\.float32"):
        task("depth").loss(prediction, torch.ones(1, 2, 1, 2))
    with pytest.raises(ShapeError, match=r"of torch\.int64"):
        task("depth").loss(prediction, torch.ones(1, 1, 2, dtype=torch.int64))
    with pytest.raises(HyperparameterError, match="far=0; expected a positive depth"):
        task("depth", far=0)


def test_pictures_run_to_the_far_end() -> None:
    near, middle, far, beyond = torch.tensor([[[0.001, 2.5, 5.0, 7.0]]])[0, 0]
    row = torch.stack([near, middle, far, beyond])[None]
    picture = task("depth", far=5.0).draw_target(row[None][0])
    assert torch.equal(picture[0, 2], picture[0, 3])
    brightness = picture[0].float().mean(-1)
    assert brightness[0] < brightness[1] < brightness[2]
