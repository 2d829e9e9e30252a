"""Semantic and part segmentation: cross-entropy and mean IoU against loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks import task


def draw(seed: int, classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    target = torch.randint(classes, (2, height, width))
    target[torch.rand(target.shape) < 0.2] = 255
    return torch.randn(2, classes, height, width), target


batches = st.builds(
    draw, st.integers(0, 2**16), st.integers(2, 9), st.integers(1, 5), st.integers(1, 5)
)


@settings(max_examples=15, deadline=None)
@given(batches)
def test_miou_equals_counting_pixels_class_by_class(batch: tuple[Tensor, Tensor]) -> None:
    prediction, target = batch
    truth, found = target.flatten().tolist(), prediction.argmax(1).flatten().tolist()
    pairs = [(t, f) for t, f in zip(truth, found, strict=True) if t != 255]
    ious = []
    for c in range(prediction.shape[1]):
        both = sum(t == c and f == c for t, f in pairs)
        either = sum(t == c or f == c for t, f in pairs)
        if either:  # a class in neither truth nor prediction is left out
            ious.append(both / either)
    expected = 100 * sum(ious) / len(ious) if ious else math.nan

    meter = task("semseg", channels=prediction.shape[1]).meter()
    meter.update(prediction, target)
    assert meter.compute() == pytest.approx({"mIoU": expected}, nan_ok=True)
    rows = [sum(t == c for t, _ in pairs) for c in range(prediction.shape[1])]
    assert meter.state["confusion"].sum(1).tolist() == rows  # truth by prediction


@settings(max_examples=10, deadline=None)
@given(batches)
def test_loss_is_the_mean_negative_log_probability(batch: tuple[Tensor, Tensor]) -> None:
    prediction, target = batch
    costs = [
        -math.log(prediction[b, :, y, x].double().softmax(0)[target[b, y, x]].item())
        for b, y, x in (target != 255).nonzero().tolist()
    ]
    loss = task("semseg", channels=prediction.shape[1]).loss(prediction, target)
    assert loss.item() == pytest.approx(sum(costs) / max(len(costs), 1), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_integer_type_are_read(dtype: torch.dtype) -> None:
    prediction, target = draw(0, 21, 4, 4)
    semseg = task("semseg")
    assert_close(semseg.loss(prediction, target.to(dtype)), semseg.loss(prediction, target))


def test_impossible_classes_are_named() -> None:
    target = torch.tensor([[[0, 30, -1], [255, 20, 30]]])
    for use in (task("semseg").loss, task("semseg").meter().update):
        with pytest.raises(
            ShapeError, match="semseg target holds -1, 30; expected 0 to 20, or 255"
        ):
            use(torch.zeros(1, 21, 2, 3), target)
    with pytest.raises(ShapeError, match="holds 7, 8, 9, 10, 11 and more; expected 0 to 6"):
        task("human_parts").loss(torch.zeros(1, 7, 1, 21), torch.arange(21)[None, None])
    with pytest.raises(
        ShapeError, match=r"shape \(B, H, W\) and whole numbers; .* of torch.float32"
    ):
        task("semseg").loss(torch.zeros(1, 21, 2, 3), target.float())


def test_names_of_classes_follow_their_number() -> None:
    assert len(task("semseg").classes) == 21 and task("semseg").classes[20] == "tvmonitor"
    assert task("human_parts").classes[0] == "background" and task("human_parts").channels == 7
    assert task("human_parts", channels=2).classes == ("class 0", "class 1")
    assert task("semseg", channels=2, classes=["no", "yes"]).classes == ("no", "yes")
    with pytest.raises(HyperparameterError, match="2 class names for channels=21; pass channels=2"):
        task("semseg", classes=["no", "yes"])


@pytest.mark.parametrize("classes", [255, 256, 300])
def test_beyond_255_classes_255_is_a_class_and_65535_is_ignored(classes: int) -> None:
    ignore = 255 if classes <= 255 else 65535
    semseg = task("semseg", channels=classes)
    target = torch.tensor([[[classes - 1, ignore, 0]]])
    prediction = torch.zeros(1, classes, 1, 3)
    prediction[0, classes - 1, 0, 0] = prediction[0, 7, 0, 1] = prediction[0, 0, 0, 2] = 50
    assert semseg.loss(prediction, target).item() == pytest.approx(0, abs=1e-6)
    assert semseg.counts(target).tolist() == [2]
    meter = semseg.meter()
    meter.update(prediction, target)
    assert meter.compute() == {"mIoU": 100.0}
    picture = semseg.draw_target(target[0])
    assert picture[0, 1].tolist() == [224, 224, 192]
    assert picture[0, 0].tolist() != picture[0, 2].tolist()
    wrong = 65535 if ignore == 255 else 400
    said = f"holds {wrong}; expected 0 to {classes - 1}, or {ignore}"
    with pytest.raises(ShapeError, match=said):
        semseg.loss(prediction, torch.full((1, 1, 3), wrong))


@pytest.mark.parametrize("channels", [0, -1, 65536, 2.5, True])
def test_impossible_numbers_of_classes_are_refused(channels: Any) -> None:
    with pytest.raises(HyperparameterError, match=f"channels={channels}; expected 1 to 65535"):
        task("semseg", channels=channels)
