"""Surface normals: L1 of unit vectors and angles against trigonometry."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks import task


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(v * v for v in vector))
    return [v / length for v in vector]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 6))
def test_loss_and_scores_equal_trigonometry(seed: int, height: int, width: int) -> None:
    torch.manual_seed(seed)
    prediction = torch.randn(2, 3, height, width)
    target = torch.nn.functional.normalize(torch.randn(2, 3, height, width), dim=1)
    target *= 0.5 + 0.5 * torch.rand(2, 1, height, width)  # stored normals aren't of unit length
    hidden = torch.rand(2, height, width) < 0.2
    target = target.masked_fill(hidden[:, None], 255)

    costs, angles = [], []
    for b, y, x in (~hidden).nonzero().tolist():
        found, truth = unit(prediction[b, :, y, x].tolist()), unit(target[b, :, y, x].tolist())
        costs.append(sum(abs(f - t) for f, t in zip(found, truth, strict=True)) / 3)
        cosine = sum(f * t for f, t in zip(found, truth, strict=True))
        angles.append(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))))
    count = len(angles)
    loss = task("normals").loss(prediction, target)
    assert loss.item() == pytest.approx(sum(costs) / max(count, 1), rel=1e-4)
    if count:
        meter = task("normals").meter()
        meter.update(prediction, target)
        assert meter.compute() == pytest.approx(
            {
                "mErr": sum(angles) / count,
                "rmse": math.sqrt(sum(a * a for a in angles) / count),
                "within_11.25": 100 * sum(a < 11.25 for a in angles) / count,
                "within_22.5": 100 * sum(a < 22.5 for a in angles) / count,
                "within_30": 100 * sum(a < 30 for a in angles) / count,
            },
            rel=1e-4,
        )


@pytest.mark.parametrize("degrees", [0.0, 0.01, 11.0, 25.0, 90.0, 179.99])
def test_a_turn_by_an_angle_is_measured_as_that_angle(degrees: float) -> None:
    angle = torch.tensor(degrees).deg2rad()
    facing = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None]
    turned = torch.stack([angle.cos(), angle.sin(), 0 * angle])[None, :, None, None]
    meter = task("normals").meter()
    meter.update(7 * turned, facing)
    scores = meter.compute()
    assert scores["mErr"] == pytest.approx(degrees, abs=1e-4)  # an arc cosine is off by 0.02 here
    assert scores["within_11.25"] == 100 * (degrees < 11.25)
    assert scores["within_30"] == 100 * (degrees < 30)


def test_rmse_is_not_the_mean_angle() -> None:
    truth = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).T[None, :, None]
    found = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).T[None, :, None]
    meter = task("normals").meter()
    meter.update(found, truth)
    scores = meter.compute()
    assert scores["mErr"] == pytest.approx(45) and scores["rmse"] == pytest.approx(90 / 2**0.5)


def test_zero_prediction_and_directionless_targets_stay_finite() -> None:
    target = torch.zeros(1, 3, 1, 3)
    target[..., 0] = torch.tensor([0.0, 0.0, 1.0])[:, None]
    target[0, 0, 0, 2] = math.nan
    valid = task("normals").read(target)[1]
    assert valid.tolist() == [[[True, False, False]]]
    prediction = torch.zeros(1, 3, 1, 3, requires_grad=True)
    task("normals").loss(prediction, target).backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()


def test_255_on_one_channel_is_no_ignored_pixel() -> None:
    target = torch.tensor([255.0, 0.0, 0.0])[None, :, None, None]
    with pytest.raises(ShapeError, match=r"holds 255; expected components in -1\.\.1"):
        task("normals").loss(torch.ones(1, 3, 1, 1), target)


def test_bytes_and_other_layouts_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"holds 200; .* 2 v / 255 - 1"):
        task("normals").loss(torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), 200.0))
    with pytest.raises(ShapeError, match=r"shape \(B, 3, H, W\).*got \(1, 2, 2, 3\)"):
        task("normals").loss(torch.ones(1, 3, 2, 2), torch.ones(1, 2, 2, 3))
    with pytest.raises(ShapeError, match=r"of torch\.uint8"):
        task("normals").loss(torch.ones(1, 3, 2, 2), torch.ones(1, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(HyperparameterError, match="normals got channels=1; expected 3"):
        task("normals", channels=1)


def test_axes_are_painted_red_green_and_blue() -> None:
    picture = task("normals").draw_target(torch.eye(3)[:, :, None])
    assert picture.flatten(0, 1).tolist() == [[255, 128, 128], [128, 255, 128], [128, 128, 255]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e4])
def test_the_loss_and_its_gradient_are_those_of_torchs_normalize(
    dtype: torch.dtype, size: float
) -> None:
    torch.manual_seed(0)
    target = torch.nn.functional.normalize(torch.randn(2, 3, 4, 5), dim=1)
    prediction = (size * torch.randn(2, 3, 4, 5)).to(dtype)
    prediction[0, :, 0, 0] = 0  # as good as no direction
    results = []
    for ours in (True, False):
        x = prediction.clone().requires_grad_()
        if ours:
            loss = task("normals").loss(x, target)
        else:
            wide = x if dtype == torch.float64 else x.float()
            unit = torch.nn.functional.normalize(wide, dim=1, eps=1e-6)
            loss = (unit - target).abs().mean()
        loss.backward()
        assert x.grad is not None and x.grad.isfinite().all()
        results.append((loss.double(), x.grad.double()))
    rough = {torch.bfloat16: 2e-2, torch.float16: 4e-3}.get(dtype, 1e-4)
    assert torch.allclose(results[0][0], results[1][0], rtol=rough)
    largest = results[1][1].abs().max()
    assert (results[0][1] - results[1][1]).abs().max() <= rough * largest + 1e-7
