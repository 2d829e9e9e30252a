"""The mean relative gain, against the last column of the papers' tables."""

from __future__ import annotations

import math

import pytest

from peft_dense.errors import UnknownNameError
from peft_dense.tasks import delta_m

NAMES = ("semseg", "human_parts", "sal", "normals")
SINGLE_TASK = (67.21, 61.93, 62.35, 17.97)


def row(*values: float) -> dict[str, float]:
    return dict(zip(NAMES, values, strict=True))


@pytest.mark.parametrize(
    ("values", "printed"),
    [
        # Polyhistor, table 1
        (SINGLE_TASK, 0.00),
        ((63.14, 52.37, 58.39, 20.89), -11.02),
        ((68.71, 62.13, 64.18, 17.35), 2.23),
        ((68.57, 55.99, 60.64, 19.42), -4.60),
        ((63.51, 52.35, 57.74, 21.07), -11.40),
        ((62.96, 52.27, 58.31, 20.90), -11.18),
        ((64.35, 52.54, 58.15, 21.07), -10.85),
        ((70.12, 57.73, 61.90, 18.96), -2.17),
        ((69.21, 57.38, 61.28, 18.83), -2.71),
        ((70.21, 59.15, 62.29, 19.26), -1.83),
        ((71.43, 60.73, 65.54, 17.77), 2.64),
        ((70.87, 59.54, 65.47, 17.47), 2.34),
        ((70.24, 59.12, 64.75, 17.40), 1.74),
        # VMT-Adapter, tables 2 and 3
        ((71.60, 60.67, 64.02, 16.41), 3.96),
        ((67.99, 56.23, 60.96, 18.63), -3.49),
        ((68.96, 56.71, 61.07, 17.92), -1.90),
        ((71.26, 61.01, 63.76, 16.12), 4.27),
        ((70.96, 60.82, 64.01, 16.39), 3.81),
        ((70.03, 59.51, 62.45, 17.09), 1.34),
        ((69.33, 59.15, 61.88, 17.55), 0.06),
    ],
)
def test_published_rows(values: tuple[float, ...], printed: float) -> None:
    assert delta_m(row(*values), row(*SINGLE_TASK)) == pytest.approx(printed, abs=0.02)


@pytest.mark.parametrize(
    ("values", "printed", "computed"),
    [
        ((65.55, 54.44, 59.14, 19.52), -9.56, -7.09),  # table 2, Shared Relative bias
        ((70.21, 59.15, 62.29, 19.26), -0.64, -1.83),  # table 2, Shared Adapter
        ((71.34, 59.95, 63.48, 16.82), 3.02, 2.79),  # table 3, VMT-Adapter, ratio 8
        ((69.85, 59.38, 61.95, 17.53), 0.61, 0.40),  # table 3, VMT-Adapter-Lite, m 6
    ],
)
def test_vmt_adapter_rows_whose_gain_is_not_that_of_their_metrics(
    values: tuple[float, ...], printed: float, computed: float
) -> None:
    found = delta_m(row(*values), row(*SINGLE_TASK))
    assert found == pytest.approx(computed, abs=0.006)
    assert found != pytest.approx(printed, abs=0.2)


def test_a_gain_is_positive_whichever_way_the_metric_goes() -> None:
    reference = {"semseg": 50.0, "depth": 2.0}
    assert delta_m({"semseg": 55.0, "depth": 2.0}, reference) == pytest.approx(5)
    assert delta_m({"semseg": 50.0, "depth": 1.8}, reference) == pytest.approx(5)
    assert delta_m({"a": 1.8}, {"a": 2.0}, lower_is_better=["a"]) == pytest.approx(10)
    assert delta_m({"a": 1.8}, {"a": 2.0}, lower_is_better=[]) == pytest.approx(-10)


def test_different_tasks_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="tasks edge, sal, reference sal; pass the same"):
        delta_m({"sal": 1.0, "edge": 1.0}, {"sal": 1.0})
    with pytest.raises(UnknownNameError, match="tasks none, reference none"):
        delta_m({}, {})
    with pytest.raises(UnknownNameError, match="lower_is_better 'normal'; did you mean 'normals'"):
        delta_m({"normals": 1.0}, {"normals": 1.0}, lower_is_better=["normal"])
    with pytest.raises(UnknownNameError, match="unknown task 'mine'"):
        delta_m({"mine": 1.0}, {"mine": 1.0})


def test_without_a_relative_gain_there_is_no_mean() -> None:
    assert math.isnan(delta_m({"sal": 1.0, "edge": 1.0}, {"sal": 1.0, "edge": 0.0}))
    assert math.isnan(delta_m({"sal": math.nan}, {"sal": 1.0}))
