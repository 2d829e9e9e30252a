"""The boundary benchmark: by hand, by brute force, and by slower ways of others."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching
from skimage.morphology import thin as slow_thin
from torch import Tensor

from peft_dense.errors import HyperparameterError, ShapeError
from peft_dense.tasks import task
from peft_dense.tasks.boundaries import (
    BoundaryMeter,
    PixelMatcher,
    boundary_counts,
    non_maximum_suppression,
    thin,
)
from peft_dense.tasks.boundaries.meter import _f

Marks = NDArray[np.bool_]
PLAIN: dict[str, Any] = {"thin": False, "thin_truth": False, "nms": False}
few = settings(max_examples=25, deadline=None)


def draw_marks(seed: int, height: int, width: int, share: float) -> Marks:
    return np.random.default_rng(seed).random((height, width)) < share


def draw_pair(seed: int, height: int, width: int, share: float) -> tuple[Marks, Marks]:
    return draw_marks(seed, height, width, share), draw_marks(seed + 1, height, width, share)


seeds = st.integers(0, 2**16)
sides = st.integers(1, 16)
shares = st.sampled_from([0.05, 0.15, 0.3, 0.6])
pairs = st.builds(draw_pair, seeds, sides, sides, shares)
tiny_pairs = st.builds(draw_pair, seeds, st.integers(1, 3), st.integers(1, 4), shares)
radii = st.sampled_from([0.0, 1.0, 1.5, 2.0, 3.7, 30.0])


def picture(*rows: str) -> Marks:
    return np.array([[mark == "#" for mark in row] for row in rows])


def column(height: int, width: int, *at: int) -> NDArray[np.float64]:
    """A map of upright lines of probability 1."""
    lines = np.zeros((height, width))
    lines[:, list(at)] = 1
    return lines


def score(probability: NDArray[Any], truth: NDArray[Any], **options: Any) -> dict[str, float]:
    meter = BoundaryMeter(task("edge"), **options)
    meter.update(*batch(probability, truth))
    return meter.compute()


def batch(probability: NDArray[Any], truth: NDArray[Any]) -> tuple[Tensor, Tensor]:
    """One image, as logits and labels."""
    logits = torch.logit(torch.from_numpy(probability).float())
    return logits[None, None], torch.from_numpy(truth.astype(np.int64))[None]


# --- matching -------------------------------------------------------------------------------------


def close(left: Marks, right: Marks, radius: float) -> list[list[bool]]:
    """Which pixels of two maps are at most a radius apart."""
    ends = np.argwhere(right).tolist()
    return [
        [math.dist(a, b) ** 2 <= radius**2 + 1e-9 for b in ends] for a in np.argwhere(left).tolist()
    ]


def brute_force(near: list[list[bool]], taken: frozenset[int] = frozenset()) -> int:
    """Try every partner, and none, for the first pixel, then for the others."""
    if not near:
        return 0
    first, *others = near
    free = [j for j, is_near in enumerate(first) if is_near and j not in taken]
    return max(brute_force(others, taken), *(1 + brute_force(others, taken | {j}) for j in free), 0)


def distances(left: Marks, right: Marks, radius: float) -> csr_matrix:
    """Distance + 1 of all pixels that may be paired."""
    a, b = np.argwhere(left), np.argwhere(right)
    apart = ((a[:, None] - b[None]) ** 2).sum(-1)
    return csr_matrix(np.where(apart <= radius**2, np.sqrt(apart) + 1, 0.0))


def reference(left: Marks, right: Marks, radius: float) -> int:
    if not left.any() or not right.any():
        return 0
    partner = maximum_bipartite_matching(distances(left, right, radius), perm_type="column")
    return int((partner >= 0).sum())


@few
@given(tiny_pairs, radii)
def test_pairs_are_as_many_as_brute_force_finds(maps: tuple[Marks, Marks], radius: float) -> None:
    marks, truth = maps
    assert PixelMatcher([truth], radius).count(marks) == brute_force(close(marks, truth, radius))


@settings(max_examples=60, deadline=None)
@given(pairs, radii)
def test_pairs_are_as_many_as_the_reference_finds(maps: tuple[Marks, Marks], radius: float) -> None:
    marks, truth = maps
    assert PixelMatcher([truth], radius).count(marks) == reference(marks, truth, radius)


@few
@given(pairs, radii)
def test_cheapest_assignment_has_the_most_pairs(maps: tuple[Marks, Marks], radius: float) -> None:
    """BSDS's objective: distances, and 100 radii for each pair that isn't made."""
    marks, truth = maps
    if not marks.any() or not truth.any():
        return
    near = distances(marks, truth, radius).toarray()
    alone = np.diag(np.full(len(near), 1 + 100 * max(radius, 1)))  # partners that stand for none
    _, partner = min_weight_full_bipartite_matching(csr_matrix(np.hstack([near, alone])))
    assert PixelMatcher([truth], radius).count(marks) == (partner < truth.sum()).sum()


@few
@given(pairs, radii)
def test_pairs_are_symmetric_and_turn_with_the_maps(
    maps: tuple[Marks, Marks], radius: float
) -> None:
    marks, truth = maps
    count = PixelMatcher([truth], radius).count(marks)
    assert PixelMatcher([marks], radius).count(truth) == count
    for turn in (np.flipud, np.fliplr, np.transpose):
        assert PixelMatcher([turn(truth)], radius).count(turn(marks)) == count


def test_a_pixel_is_in_one_pair_only() -> None:
    marks, truth = picture("#.#", "..."), picture(".#.", "...")
    assert PixelMatcher([truth], 1).count(marks) == 1
    # The middle pixel could take either, but must leave the left one to the left one.
    assert PixelMatcher([picture("##..")], 1).count(picture(".##.")) == 2
    # Left of the next row is one step on in memory, but far in the image.
    assert PixelMatcher([picture("....", "#...")], 1).count(picture("...#", "....")) == 0


def matchings(near: list[list[bool]], taken: frozenset[int] = frozenset()) -> Iterator[list[bool]]:
    """Which left pixels are paired, in every matching there is."""
    if not near:
        yield []
        return
    for rest in matchings(near[1:], taken):
        yield [False, *rest]
    for j, is_near in enumerate(near[0]):
        if is_near and j not in taken:
            for rest in matchings(near[1:], taken | {j}):
                yield [True, *rest]


@few
@given(st.builds(draw_pair, seeds, st.just(2), st.just(3), shares), seeds, st.sampled_from([0, 1]))
def test_hits_of_two_annotators_are_the_union_of_their_best_matchings(
    maps: tuple[Marks, Marks], seed: int, radius: float
) -> None:
    marks, *truths = *maps, draw_marks(seed + 2, 2, 3, 0.4)
    best = []
    for truth in truths:
        found = [tuple(each) for each in matchings(close(marks, truth, radius))]
        most = max(sum(each) for each in found)
        best.append([each for each in set(found) if sum(each) == most])
    union = max(sum(a or b for a, b in zip(*both, strict=True)) for both in product(*best))
    paired = sum(reference(marks, truth, radius) for truth in truths)

    counts = boundary_counts(
        marks * 0.9, truths, tolerance=radius / math.hypot(2, 3) + 1e-9, thresholds=1, **PLAIN
    )
    assert counts[:, 0].tolist() == [union, marks.sum(), paired, sum(t.sum() for t in truths)]


# --- thinning and suppression ---------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds, sides, sides, st.sampled_from([0.3, 0.6, 0.9, 1.0]))
def test_thinning_is_scikit_images(seed: int, height: int, width: int, share: float) -> None:
    marks = draw_marks(seed, height, width, share)
    assert (thin(marks) == slow_thin(marks)).all()


def naive_suppression(values: NDArray[np.float64], r: int, s: int, m: float) -> NDArray[Any]:
    """Pixel by pixel, from the formulas."""
    height, width = values.shape
    weights = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 25
    padded = np.pad(values, 4, mode="symmetric")
    smooth = np.array(
        [[weights @ padded[y : y + 9, x : x + 9] @ weights for x in range(width)]
         for y in range(height)]
    )  # fmt: skip
    dy, dx = np.gradient(smooth)
    dyy, dxy, dxx = np.gradient(dy)[0], np.gradient(dx)[0], np.gradient(dx)[1]

    def at(y: float, x: float) -> float:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = min(int(y), height - 2), min(int(x), width - 2)
        (a, b), (c, d) = values[top : top + 2, left : left + 2]
        y, x = y - top, x - left
        return (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)

    out = values.copy()
    for y, x in np.ndindex(height, width):
        sign = -1 if dxy[y, x] > 0 else 1
        o = math.atan(sign * dyy[y, x] / (dxx[y, x] + 1e-5))
        steps = [d for d in range(-r, r + 1) if d]
        if any(m * values[y, x] < at(y + d * math.sin(o), x + d * math.cos(o)) for d in steps):
            out[y, x] = 0
        for inside in (y, height - 1 - y, x, width - 1 - x):
            out[y, x] *= min(inside / s, 1) if s else 1
    return out


@few
@given(seeds, st.integers(12, 16), st.integers(12, 16), st.sampled_from([1, 2]), st.integers(0, 5))
def test_suppression_equals_the_naive_one(
    seed: int, height: int, width: int, radius: int, border: int
) -> None:
    values = np.random.default_rng(seed).random((height, width))
    got = non_maximum_suppression(values, radius=radius, border=border)
    np.testing.assert_allclose(got, naive_suppression(values, radius, border, 1.01), atol=1e-12)


@given(st.floats(0, math.pi))
@example(0.615234375)  # two pixels beside the border stay, 2.1 from the crest
@example(math.pi / 2)  # the same along the border, where the ridge has nearly run out
def test_suppression_leaves_the_crest_of_a_ridge(angle: float) -> None:
    y, x = np.mgrid[-20:21, -20:21]
    off = np.abs(x * math.cos(angle) + y * math.sin(angle))
    kept = non_maximum_suppression(np.exp(-(off**2) / 8), border=5) > 0
    # Where it fades, second derivatives are one-sided, and the direction may be any.
    clear = np.s_[5:-5, 5:-5]
    assert off[clear][kept[clear]].max() <= math.sqrt(0.5)  # half of a pixel's diagonal
    # Every row, or every column, still meets it, but for the border that fades out.
    axis = 1 if abs(math.cos(angle)) > abs(math.sin(angle)) else 0
    assert kept.any(axis)[1:-1].all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 11)])
def test_suppression_takes_any_size(shape: tuple[int, int]) -> None:
    assert (non_maximum_suppression(np.full(shape, 0.5), border=0) == 0.5).all()
    assert non_maximum_suppression(np.full(shape, 0.5)).shape == shape


# --- counts ---------------------------------------------------------------------------------------


def naive_counts(
    probability: NDArray[np.float64], truth: Marks, tolerance: float, thresholds: int, wanted: bool
) -> NDArray[np.int64]:
    radius = tolerance * math.hypot(*truth.shape)
    rows = []
    for k in range(1, thresholds + 1):
        marks = probability >= k / (thresholds + 1)
        marks = slow_thin(marks) if wanted else marks
        both = reference(marks, truth, radius)
        rows.append([both, marks.sum(), both, truth.sum()])
    return np.array(rows).T


@few
@given(pairs, seeds, st.sampled_from([0.0, 0.05, 0.12]), st.booleans())
def test_counts_at_all_thresholds_equal_one_after_another(
    maps: tuple[Marks, Marks], seed: int, tolerance: float, wanted: bool
) -> None:
    marks, truth = maps
    # Few values, so that some thresholds leave the map as it was.
    values = np.random.default_rng(seed).choice([0.04, 0.21, 0.5, 0.93], size=marks.shape) * marks
    got = boundary_counts(
        values,
        [truth],
        tolerance=tolerance,
        thresholds=19,
        thin=wanted,
        thin_truth=False,
        nms=False,
    )
    assert got.dtype == np.int64
    assert (got == naive_counts(values, truth, tolerance, 19, wanted)).all()


def test_suppression_comes_first_and_truth_is_thinned() -> None:
    values, truth = np.random.default_rng(0).random((20, 20)), np.zeros((20, 20), dtype=bool)
    truth[8:11] = True
    got = boundary_counts(values, [truth], tolerance=0.1, thresholds=4)
    expected = naive_counts(non_maximum_suppression(values), slow_thin(truth), 0.1, 4, True)
    assert (got == expected).all()


@few
@given(pairs, st.sampled_from([0.0, 0.05, 0.1]))
def test_swapping_prediction_and_truth_swaps_precision_and_recall(
    maps: tuple[Marks, Marks], tolerance: float
) -> None:
    options: dict[str, Any] = {"tolerance": tolerance, "thresholds": 1, **PLAIN}
    one = boundary_counts(maps[0] * 1.0, [maps[1]], **options)
    other = boundary_counts(maps[1] * 1.0, [maps[0]], **options)
    assert (one == other[[2, 3, 0, 1]]).all()


@few
@given(pairs, seeds)
def test_hits_grow_with_the_tolerance(maps: tuple[Marks, Marks], seed: int) -> None:
    values = np.random.default_rng(seed).random(maps[0].shape)
    curves = [
        boundary_counts(values, [maps[1]], tolerance=each, thresholds=4, **PLAIN)
        for each in (0.0, 0.04, 0.1, 0.3)
    ]
    for narrow, wide in pairwise(curves):
        assert (narrow[[0, 2]] <= wide[[0, 2]]).all() and (narrow[[1, 3]] == wide[[1, 3]]).all()


@few
@given(pairs, seeds)
def test_ignored_pixels_count_neither_way(maps: tuple[Marks, Marks], seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, valid = maps[0], rng.random(maps[0].shape) < 0.7
    values, other = rng.random((2, *truth.shape))
    other = np.where(valid, values, other)
    curves = [
        boundary_counts(each, [marks], valid, tolerance=0.1, thresholds=4)
        for each, marks in ((values, truth & valid), (other, truth | ~valid))
    ]
    assert (curves[0] == curves[1]).all()
    # And they are as if nothing were there.
    plain = boundary_counts(values * valid, [truth & valid], tolerance=0.1, thresholds=4)
    assert (curves[0] == plain).all()


def test_nan_is_no_edge() -> None:
    values = np.full((20, 20), np.nan)
    assert not boundary_counts(values, [np.eye(20, dtype=bool)])[:3].any()


def test_maps_of_other_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 5\), \(4, 5\), \(5, 4\)"):
        boundary_counts(np.zeros((4, 5)), [np.zeros((5, 4), dtype=bool)])
    with pytest.raises(ShapeError, match="at least one truth"):
        boundary_counts(np.zeros((4, 5)), [])


# --- scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"nms": False}, PLAIN])
def test_an_edge_aside_is_right_within_the_tolerance_only(options: dict[str, Any]) -> None:
    # The diagonal is 50 pixels, so 0.02 of it is one. Suppression fades the border out: no line
    # there.
    truth, guess = np.zeros((30, 40)), np.zeros((30, 40))
    truth[8:22, 20], guess[8:22, 21] = 1, 1
    assert score(guess, truth, tolerance=0.02, **options)["odsF"] == 100
    assert score(guess, truth, tolerance=0.0199, **options)["odsF"] == 0
    assert score(guess, truth, tolerance=0.0199, **options)["oisF"] == 0


def test_scores_at_two_thresholds_by_hand() -> None:
    # Thresholds 1/3 and 2/3; four true pixels, tolerance one pixel (diagonal 10).
    truth, guess = np.zeros((6, 8)), np.zeros((6, 8))
    truth[2, 1:5] = 1
    guess[1, 1:3] = 0.9  # two hits at both
    guess[2, 4] = 0.5  # a third at the lower one
    guess[4, 2:7] = 0.5  # and five misses
    # Lower: P 3/8, R 3/4, F 1/2. Higher: P 1, R 2/4, F 2/3.
    options: dict[str, Any] = {"tolerance": 0.1, "thresholds": 2, **PLAIN}
    counts = boundary_counts(guess, [truth == 1], **options)
    assert counts.tolist() == [[3, 2], [8, 2], [3, 2], [4, 4]]
    got = score(guess, truth, **options)
    assert got["odsF"] == got["oisF"] == pytest.approx(200 / 3)
    assert got["odsT"] == pytest.approx(2 / 3)


def test_ois_takes_the_best_threshold_of_each_image_by_hand() -> None:
    # Thresholds 1/3 and 2/3. One image is right at the lower alone, one at the higher.
    truth = column(9, 9, 4)
    timid, bold = 0.5 * truth, np.maximum(0.9 * truth, 0.5 * column(9, 9, 0, 8))
    meter = BoundaryMeter(task("edge"), tolerance=0, thresholds=2, **PLAIN)
    for guess in (timid, bold):
        meter.update(*batch(guess, truth))
    got = meter.compute()
    # Lower: 9 of 9 and 9 of 27 right, all 18 found: P 1/2, R 1. Higher: P 1, R 1/2.
    assert got["odsF"] == pytest.approx(200 / 3)
    assert got["odsT"] == pytest.approx(1 / 3)
    assert got["oisF"] == 100


def test_an_image_where_nothing_is_right_adds_its_fewest_errors_to_ois() -> None:
    truth = column(9, 9, 4)
    meter = BoundaryMeter(task("edge"), tolerance=0, thresholds=3, **PLAIN)
    meter.update(*batch(truth, truth))
    meter.update(*batch(0.6 * truth, 0 * truth))  # no edge, yet 9 pixels above 1/4 and 1/2
    assert meter.compute()["oisF"] == 100
    assert meter.state["curve"][1].tolist() == [18, 18, 9]


def curve_scores(*points: tuple[int, int], true: int = 10) -> dict[str, float]:
    """Scores of (hits, predictions) at rising thresholds."""
    hits, predictions = zip(*points, strict=True)
    meter = BoundaryMeter(task("edge"), thresholds=len(points))
    meter.state["curve"] = torch.tensor([hits, predictions, hits, [true] * len(points)])
    return meter.compute()


def test_average_precision_of_a_curve_by_hand() -> None:
    got = curve_scores((10, 20), (5, 5), (0, 0))
    # (R, P) = (0, 0), (0.5, 1), (1, 0.5): 2 r for the recalls 0 ... 0.5, then 1.5 - r.
    expected = sum(2 * r for r in range(51)) + sum(150 - r for r in range(51, 101))
    assert got["AP"] == pytest.approx(expected / 100)
    assert got["R50"] == pytest.approx(100)
    # A curve from (0.5, 1) to (0.9, 0.6) spans the recalls 0.5 ... 0.9 only.
    got = curve_scores((9, 15), (5, 5))
    assert got["AP"] == pytest.approx(sum(150 - r for r in range(50, 91)) / 100)
    assert got["R50"] == pytest.approx(90)  # precision never falls to 0.5: where it is least
    # Precision 0.5 lies half way from (0.8, 0.4) to (0.3, 0.6).
    assert curve_scores((8, 20), (3, 5))["R50"] == pytest.approx(55)
    assert math.isnan(curve_scores((8, 20), (4, 10))["R50"])  # always below
    # Of equal precisions the highest recall counts, of equal recalls the lowest threshold.
    assert curve_scores((8, 16), (4, 8), (3, 3))["R50"] == pytest.approx(80)
    assert curve_scores((8, 10), (8, 8), (5, 5))["AP"] == curve_scores((8, 10), (5, 5))["AP"]
    assert curve_scores((10, 10), (10, 10))["AP"] == 0  # a point is no curve


@few
@given(seeds, st.integers(1, 3), sides, sides)
def test_without_tolerance_and_thinning_it_is_the_pixelwise_meter(
    seed: int, images: int, height: int, width: int
) -> None:
    torch.manual_seed(seed)
    target = (torch.rand(images, height, width) < 0.4).long()
    target[0, 0, 0] = 1
    target[torch.rand(target.shape) < 0.2] = 255
    logits = 2 * torch.randn(images, 1, height, width)
    meter, pixelwise = BoundaryMeter(task("edge"), 0, **PLAIN), task("edge").meter()
    for each in (meter, pixelwise):
        each.update(logits, target)
    assert meter.compute()["odsF"] == pytest.approx(pixelwise.compute()["F"], nan_ok=True)


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_merged_meters_are_one_meter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = [batch(rng.random((18, 21)), rng.random((18, 21)) < 0.2) for _ in range(3)]
    first, second, alone, at_once = (BoundaryMeter(task("edge"), 0.05, 9) for _ in range(4))
    first.update(*images[0])
    for each in images[1:]:
        second.update(*each)
    for each in images:
        alone.update(*each)
    at_once.update(*(torch.cat(part) for part in zip(*images, strict=True)))
    first.merge_state(second)
    for other in (first, at_once):
        assert all((other.state[name] == alone.state[name]).all() for name in alone.state)
        assert other.compute() == pytest.approx(alone.compute(), nan_ok=True)
    # Each image's best threshold, from its own counts.
    best = np.zeros(4, dtype=np.int64)
    for logits, target in images:
        values = logits[0, 0].sigmoid().numpy()
        counts = boundary_counts(values, [target[0].numpy() == 1], tolerance=0.05, thresholds=9)
        best += counts[:, int(_f(counts).argmax())]
    assert alone.state["best"].tolist() == best.tolist()


def test_ignored_labels_reach_the_meter() -> None:
    truth = column(30, 40, 20)
    target = truth.astype(np.int64)
    target[:, 30:] = 255
    guess = np.maximum(truth, 0.9 * column(30, 40, 35))
    assert score(guess, target, nms=False)["odsF"] == 100
    assert score(guess, truth, nms=False, thresholds=1)["odsF"] == pytest.approx(200 / 3)


def test_without_truth_scores_are_nan() -> None:
    meter = BoundaryMeter(task("edge"))
    assert set(meter.compute()) == {"odsF", "oisF", "AP", "R50", "odsT"}
    assert all(math.isnan(value) for value in meter.compute().values())
    meter.update(*batch(column(9, 9, 4), np.full((9, 9), 255)))
    assert all((value == 0).all() for value in meter.state.values())
    meter.update(*batch(column(9, 9, 4), np.zeros((9, 9))))
    assert all(math.isnan(value) for value in meter.compute().values())


@pytest.mark.parametrize("wrong", [{"tolerance": -0.1}, {"tolerance": 1.0}, {"thresholds": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(
        HyperparameterError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"
    ):
        BoundaryMeter(task("edge"), **wrong)


@pytest.mark.parametrize(("apart", "found"), [((1, 0), 100.0), ((0, 1), 100.0), ((1, 1), 0.0)])
def test_by_default_a_pair_lies_within_three_quarters_of_a_percent(
    apart: tuple[int, int], found: float
) -> None:
    """On 100 x 100 pixels that is 1.06 pixels; NYUD's 1.1 percent would be 1.56."""
    meter = BoundaryMeter(task("edge"), nms=False, thin=False, thin_truth=False)
    truth = torch.zeros(1, 100, 100, dtype=torch.long)
    truth[0, 50, 50] = 1
    logits = torch.full((1, 1, 100, 100), -9.0)
    logits[0, 0, 50 + apart[0], 50 + apart[1]] = 9.0
    meter.update(logits, truth)
    assert meter.compute()["odsF"] == found
    marks = logits[0, 0].sigmoid().numpy()
    both, *_ = boundary_counts(marks, [truth[0].numpy() == 1], nms=False)
    assert both.max() == found / 100
