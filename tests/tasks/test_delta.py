"""The mean relative gain, against the last column of the papers' tables."""

from __future__ import annotations

import math

import pytest

from peft_dense import papers
from peft_dense.errors import DataError, UnknownNameError
from peft_dense.tasks import delta_m, task
from peft_dense.tasks.scores import published, references

SINGLE = references()["polyhistor_swin_tiny"]
# VMT-Adapter rows whose printed gain isn't that of their printed metrics.
MISPRINTED = {
    "shared_relative_bias": -7.08,  # table 2 prints -9.56
    "shared_adapter": -1.83,  # table 2: -0.64
    "vmt ratio=8": 2.79,  # table 3: 3.02
    "vmt_lite m=6": 0.40,  # table 3: 0.61
}


def test_reference_is_the_papers_single_task_full_fine_tuning() -> None:
    assert SINGLE.values == {"semseg": 67.21, "human_parts": 61.93, "sal": 62.35, "normals": 17.97}
    assert [task(name).metric for name in SINGLE.values] == list(SINGLE.metrics.values())
    lower = tuple(name for name in SINGLE.values if not task(name).higher_is_better)
    assert SINGLE.lower_is_better == lower
    for name, reference in references().items():
        assert reference.source.strip() and reference.protocol.strip(), name


@pytest.mark.parametrize("row", [row for row in papers.ROWS if row.scores], ids=lambda r: r.label)
def test_published_rows(row: papers.Row) -> None:
    found = delta_m(published(row), SINGLE)
    if row.label in MISPRINTED:
        assert found == pytest.approx(MISPRINTED[row.label], abs=0.006)
        assert found != pytest.approx(row.delta, abs=0.2)
    else:
        assert found == pytest.approx(row.delta, abs=0.02)


def test_rows_have_the_cells_of_their_tables() -> None:
    assert {row.label for row in papers.ROWS} == papers._CELLS.keys()
    assert [row.label for row in papers.ROWS if not row.scores] == ["hyperformer ratio=32"]
    with pytest.raises(DataError, match=r"print no metrics of hyperformer ratio=32, only Delta -0"):
        published(next(row for row in papers.ROWS if not row.scores))
    for row in papers.ROWS:
        assert row.source.split("; ") == [papers.PLACES[place] for place in row.places.split()]


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
