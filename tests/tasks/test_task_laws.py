"""Laws of every registered task, whatever its labels: a new task gets them by being registered."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from peft_dense.errors import ShapeError
from peft_dense.tasks import IGNORE, Task, task, tasks
from peft_dense.tasks.binary import Binary
from peft_dense.tasks.depth import Depth
from peft_dense.tasks.normals import Normals
from peft_dense.tasks.segmentation import Segmentation

seeds = st.integers(0, 2**16)
sides = st.integers(1, 9)
few = settings(max_examples=10, deadline=None)
every_task = pytest.mark.parametrize("name", tasks())


def random_target(kind: Task, *shape: int) -> Tensor:
    """Labels of all pixels of (B, H, W)."""
    batch, height, width = shape
    if isinstance(kind, Segmentation):
        return torch.randint(kind.channels, shape)
    if isinstance(kind, Binary):
        return torch.randint(2, shape)
    if isinstance(kind, Normals):
        return F.normalize(torch.randn(batch, 3, height, width), dim=1)
    assert isinstance(kind, Depth), f"say what labels of {kind.name} look like"
    return 0.5 + 5 * torch.rand(batch, 1, height, width)


def ignore(kind: Task, target: Tensor, where: Tensor) -> Tensor:
    """Take away the labels ``where`` (B, H, W) says so."""
    where = where[:, None] if target.ndim == 4 else where
    return target.masked_fill(where, 0 if isinstance(kind, Depth) else IGNORE)


def perfect(kind: Task, target: Tensor) -> Tensor:
    """The best prediction of a target without ignored pixels."""
    if isinstance(kind, Segmentation):
        return 50 * F.one_hot(target, kind.channels).movedim(-1, 1).float()
    if isinstance(kind, Binary):
        return 100 * target[:, None].float() - 50
    return 3 * target if isinstance(kind, Normals) else target


def scores(kind: Task, *batches: tuple[Tensor, Tensor]) -> dict[str, float]:
    meter = kind.meter()
    for prediction, target in batches:
        meter.update(prediction, target)
    return meter.compute()


@every_task
@pytest.mark.parametrize("broken", [False, True])
def test_without_labels_the_loss_is_zero_and_so_is_its_gradient(name: str, broken: bool) -> None:
    kind = task(name)
    target = random_target(kind, 2, 4, 5)
    target = ignore(kind, target, torch.ones(2, 4, 5, dtype=torch.bool))
    prediction = torch.full((2, kind.channels, 4, 5), math.nan if broken else 0.3)
    loss = kind.loss(prediction.requires_grad_(), target)
    loss.backward()
    assert loss.shape == () and loss.item() == 0
    assert prediction.grad is not None and (prediction.grad == 0).all()
    assert all(math.isnan(value) for value in scores(kind, (prediction, target)).values())


@every_task
@few
@given(seed=seeds, height=sides, width=sides)
def test_ignored_pixels_change_nothing(name: str, seed: int, height: int, width: int) -> None:
    torch.manual_seed(seed)
    kind = task(name)
    hidden = torch.rand(2, height, width) < 0.5
    target = ignore(kind, random_target(kind, 2, height, width), hidden)
    one = torch.randn(2, kind.channels, height, width)
    other = torch.where(hidden[:, None], torch.randn_like(one), one)
    one = torch.where(hidden[:, None], math.nan, one).requires_grad_()
    loss = kind.loss(one, target)
    assert_close(kind.loss(other, target), loss.detach())
    assert scores(kind, (one, target)) == pytest.approx(scores(kind, (other, target)), nan_ok=True)
    loss.backward()
    assert one.grad is not None and (one.grad.movedim(1, -1)[hidden] == 0).all()


@every_task
@few
@given(seed=seeds, first=st.integers(1, 3), second=st.integers(1, 3), height=sides, width=sides)
def test_meter_of_two_batches_is_the_meter_of_both_at_once(
    name: str, seed: int, first: int, second: int, height: int, width: int
) -> None:
    torch.manual_seed(seed)
    kind = task(name)
    target = random_target(kind, first + second, height, width)
    target = ignore(kind, target, torch.rand(first + second, height, width) < 0.3)
    prediction = torch.randn(first + second, kind.channels, height, width)
    parts = list(zip(prediction.split([first, second]), target.split([first, second]), strict=True))
    expected = pytest.approx(scores(kind, (prediction, target)), nan_ok=True, rel=1e-5)
    assert scores(kind, *parts) == expected
    assert scores(kind, *parts[::-1]) == expected

    meters = kind.meter(), kind.meter()
    for meter, part in zip(meters, parts, strict=True):
        meter.update(*part)
    meters[0].merge_state(meters[1])
    assert meters[0].compute() == expected
    assert meters[1].compute() == pytest.approx(scores(kind, parts[1]), nan_ok=True)


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, list[float], list[int], int, int]:
    """A seed, the share of ignored pixels of each sample, and how many samples each part has."""
    hidden = draw(st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=2, max_size=6))
    cuts = sorted(draw(st.sets(st.integers(1, len(hidden) - 1), min_size=1)))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, len(hidden)], strict=True)]
    return draw(seeds), hidden, sizes, draw(sides), draw(sides)


@every_task
@few
@given(split=splits())
def test_losses_of_the_parts_add_up_to_the_loss_of_the_batch(
    name: str, split: tuple[int, list[float], list[int], int, int]
) -> None:
    seed, hidden, sizes, height, width = split
    torch.manual_seed(seed)
    kind = task(name)
    target = random_target(kind, len(hidden), height, width)
    where = torch.rand(len(hidden), height, width) < torch.tensor(hidden)[:, None, None]
    target = ignore(kind, target, where)
    prediction = torch.randn(len(hidden), kind.channels, height, width, requires_grad=True)
    whole = kind.counts(target)
    parts = list(zip(prediction.split(sizes), target.split(sizes), strict=True))
    assert whole.ndim == 1 and whole.dtype == torch.int64 and whole[0] == (~where).sum()
    assert torch.equal(sum(kind.counts(part) for _, part in parts), whole)

    expected = kind.loss(prediction, target)
    assert torch.equal(kind.loss(prediction, target, whole), expected)
    losses = [kind.loss(*part, whole) for part in parts]
    assert_close(sum(losses), expected)
    for loss, (_, part) in zip(losses, parts, strict=True):
        assert loss.requires_grad
        assert kind.counts(part)[0] > 0 or loss.item() == 0
    found, truth = (
        torch.autograd.grad(loss, prediction, retain_graph=True)[0]
        for loss in (sum(losses), expected)
    )
    assert_close(found, truth)


@every_task
def test_mean_of_the_parts_is_not_the_loss_of_the_batch(name: str) -> None:
    """So the law above needs its counts."""
    torch.manual_seed(0)
    kind = task(name)
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[1, 1:] = True
    target = ignore(kind, random_target(kind, 2, 4, 4), hidden)
    prediction = torch.randn(2, kind.channels, 4, 4)
    means = [kind.loss(prediction[i : i + 1], target[i : i + 1]) for i in (0, 1)]
    assert abs(sum(means) / 2 - kind.loss(prediction, target)) > 1e-3


@every_task
def test_counts_of_another_batch_are_refused(name: str) -> None:
    kind = task(name)
    target, prediction = random_target(kind, 2, 3, 4), torch.zeros(2, kind.channels, 3, 4)
    counts = kind.counts(target)
    for wrong in (counts - 1, counts.repeat(2), counts[0]):
        with pytest.raises(ShapeError, match=rf"{name} got counts=.*own, \[24.*over all parts"):
            kind.loss(prediction, target, wrong)
    with pytest.raises(ShapeError, match=f"a {name} target has shape"):
        kind.counts(target[None])


def test_a_criterion_that_takes_the_mean_is_refused() -> None:
    """Its parts wouldn't add up."""

    class Mean(Depth):
        def criterion(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
            return super().criterion(prediction, target, counts).mean()

    with pytest.raises(ShapeError, match=r"depth gave \(\); expected .* pixel, \(2, 3, 4\)"):
        Mean().loss(torch.zeros(2, 1, 3, 4), torch.ones(2, 3, 4))


@every_task
@few
@given(seed=seeds, height=sides, width=sides)
def test_loss_and_scores_do_not_depend_on_where_a_pixel_is(
    name: str, seed: int, height: int, width: int
) -> None:
    torch.manual_seed(seed)
    kind = task(name)
    target = random_target(kind, 2, height, width)
    prediction = torch.randn(2, kind.channels, height, width)
    flipped = prediction.flip(-1), target.flip(-1)
    turned = prediction.mT.contiguous(), target.mT.contiguous()
    for moved in (flipped, turned):
        assert_close(kind.loss(*moved), kind.loss(prediction, target))
        expected = scores(kind, (prediction, target))
        assert scores(kind, moved) == pytest.approx(expected, nan_ok=True, rel=1e-5)


@every_task
def test_perfect_prediction_gets_the_perfect_score_and_beats_a_random_one(name: str) -> None:
    torch.manual_seed(0)
    kind = task(name)
    target = random_target(kind, 2, 8, 9)
    best, drawn = perfect(kind, target), torch.randn(2, kind.channels, 8, 9)
    for key, value in scores(kind, (best, target)).items():
        error = key in ("mErr", "rmse", "abs_rel")
        assert value == pytest.approx(0 if error else 100, abs=1e-3), key
    better, worse = (scores(kind, (p, target))[kind.metric] for p in (best, drawn))
    assert better > worse if kind.higher_is_better else better < worse
    assert kind.loss(best, target).item() == pytest.approx(0, abs=1e-5)
    assert kind.loss(drawn, target) > 0.01


@every_task
def test_a_step_against_the_gradient_lowers_the_loss(name: str) -> None:
    torch.manual_seed(0)
    kind = task(name)
    target = random_target(kind, 2, 4, 5)
    prediction = torch.randn(2, kind.channels, 4, 5, requires_grad=True)
    loss = kind.loss(prediction, target)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert kind.loss(prediction - 0.1 * gradient / gradient.norm(), target) < loss


@every_task
def test_reset_meter_is_an_empty_meter(name: str) -> None:
    kind = task(name)
    meter = kind.meter()
    assert kind.metric in meter.compute()
    assert all(math.isnan(value) for value in meter.compute().values())
    target = random_target(kind, 1, 4, 4)
    meter.update(perfect(kind, target), target)
    assert not math.isnan(meter.compute()[kind.metric])
    meter.reset()
    assert all((value == 0).all() for value in meter.state.values())
    assert math.isnan(meter.compute()[kind.metric])


@every_task
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_scored_in_float32(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kind = task(name)
    target = random_target(kind, 2, 4, 4)
    prediction = torch.randn(2, kind.channels, 4, 4, dtype=dtype)
    assert torch.equal(kind.loss(prediction, target), kind.loss(prediction.float(), target))
    assert scores(kind, (prediction, target)) == scores(kind, (prediction.float(), target))
    assert all(not state.requires_grad for state in kind.meter().state.values())


@every_task
def test_truth_and_its_prediction_are_painted_alike(name: str) -> None:
    torch.manual_seed(0)
    kind = task(name)
    target = random_target(kind, 1, 4, 5)
    picture = kind.draw_target(target[0])
    assert picture.shape == (4, 5, 3) and picture.dtype == torch.uint8
    predicted = kind.draw_prediction(perfect(kind, target)[0].requires_grad_())
    assert_close(predicted, picture, atol=1, rtol=0)  # rounding of a scaled normal
    assert len(picture.flatten(0, 1).unique(dim=0)) > 1

    hidden = torch.rand(1, 4, 5) < 0.5
    partly = kind.draw_target(ignore(kind, target, hidden)[0])
    assert torch.equal(partly[~hidden[0]], picture[~hidden[0]])
    assert (partly[hidden[0]] == torch.tensor([224, 224, 192])).all()
    assert kind.draw_prediction(torch.full((kind.channels, 2, 2), math.nan)).shape == (2, 2, 3)


@every_task
def test_a_prediction_that_does_not_fit_is_refused(name: str) -> None:
    kind = task(name)
    target = random_target(kind, 2, 4, 4)
    for shape in [(2, kind.channels + 1, 4, 4), (2, kind.channels, 2, 2), (1, kind.channels, 4, 4)]:
        with pytest.raises(ShapeError, match=rf"{name}.*needs.*got \({shape[0]}, {shape[1]}"):
            kind.loss(torch.zeros(shape), target)
        with pytest.raises(ShapeError, match="needs a floating-point prediction"):
            kind.meter().update(torch.zeros(shape), target)
    with pytest.raises(ShapeError, match=r"floating-point.*int64"):
        kind.loss(torch.zeros(2, kind.channels, 4, 4, dtype=torch.int64), target)
    with pytest.raises(ShapeError, match=f"a {name} target has shape"):
        kind.loss(torch.zeros(2, kind.channels, 4, 4), target[None])
    with pytest.raises(ShapeError, match=r"one prediction .* at a time"):
        kind.draw_prediction(torch.zeros(2, kind.channels, 4, 4))
