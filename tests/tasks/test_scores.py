"""Scores: what can be compared, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from peft_dense.errors import DataError, PeftDenseError, UnknownNameError
from peft_dense.tasks import delta_m, task
from peft_dense.tasks.scores import Scores, references

RUN = Scores(
    values={"semseg": 60.0, "normals": 20.0},
    metrics={"semseg": "mIoU", "normals": "mErr"},
    lower_is_better=("normals",),
    protocol="448x448, resized labels",
    source="run 3",
)


def test_scores_measured_in_one_way_compare() -> None:
    better = replace(RUN, values={"semseg": 66.0, "normals": 18.0}, source="run 4")
    assert delta_m(better, RUN) == pytest.approx(10)
    assert delta_m(better, RUN.values) == delta_m(better.values, RUN) == delta_m(better, RUN)
    assert delta_m(better, RUN, []) == pytest.approx(0)


def test_the_scores_own_direction_counts() -> None:
    """Also of tasks that nobody registered."""
    one, two = (
        replace(RUN, values={"mine": v}, metrics={"mine": "error"}, lower_is_better=("mine",))
        for v in (2.0, 1.0)
    )
    assert delta_m(two, one) == pytest.approx(50)
    assert delta_m({"mine": 1.0}, one) == delta_m(two, {"mine": 2.0}) == pytest.approx(50)


def test_other_protocols_are_refused_unless_allowed() -> None:
    native = replace(RUN, protocol="native size", source="Table 1")
    with pytest.raises(DataError) as caught:
        delta_m(RUN, native)
    message = str(caught.value)
    for part in ("'run 3'", "'Table 1'", RUN.protocol, "native size", "allow_protocols=True"):
        assert part in message
    assert isinstance(caught.value, PeftDenseError)
    assert delta_m(RUN, native, allow_protocols=True) == 0
    with pytest.raises(DataError, match="sizes of image and label not printed"):
        RUN.check(references()["polyhistor_swin_tiny"])


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"semseg": "mIoU", "normals": "rmse"}},
        {"lower_is_better": ("normals", "semseg")},
    ],
)
def test_other_metrics_are_always_refused(change: dict[str, object]) -> None:
    other = replace(RUN, source="Table 1", **change)  # type: ignore[arg-type]
    name, *kinds = (
        ("normals", r"mErr \(lower", r"rmse \(lower")
        if "metrics" in change
        else ("semseg", r"mIoU \(higher", r"mIoU \(lower")
    )
    for allowed in (False, True):
        with pytest.raises(
            DataError, match=f"'run 3' and of 'Table 1' .*{name} is {kinds[0]}.*{kinds[1]}"
        ):
            delta_m(RUN, other, allow_protocols=allowed)


def test_other_tasks_are_refused_first() -> None:
    with pytest.raises(UnknownNameError, match="pass the same tasks in both"):
        delta_m(RUN, references()["polyhistor_swin_tiny"])


@pytest.mark.parametrize(
    "change",
    [
        {"metrics": {"semseg": "mIoU"}},
        {"values": {"semseg": 1.0}},
        {"lower_is_better": ("depth",)},
        {"protocol": " "},
        {"source": ""},
        {"values": {}, "metrics": {}, "lower_is_better": ()},
    ],
    ids=str,
)
def test_scores_that_say_too_little_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(
        DataError, match=r"expected the same tasks in the|say what was measured, how"
    ):
        replace(RUN, **change)  # type: ignore[arg-type]


def test_scores_of_a_run_are_its_primary_metrics() -> None:
    computed = {"far": {"rmse": 0.5, "abs_rel": 0.1}, "sal": {"mIoU": 60.0, "maxF": 80.0}}
    tasks = {"far": task("depth"), "sal": task("sal")}
    found = Scores.of(computed, tasks, protocol="p", source="s")
    assert found.values == {"far": 0.5, "sal": 60.0}
    assert found.metrics == {"far": "rmse", "sal": "mIoU"} and found.lower_is_better == ("far",)
    with pytest.raises(UnknownNameError, match="unknown task 'far'"):
        Scores.of(computed, protocol="p", source="s")


def test_scores_go_through_json_and_print_whole() -> None:
    assert Scores(**json.loads(json.dumps(asdict(RUN)))) == RUN
    text = str(RUN).splitlines()
    assert [line.split() for line in text[:2]] == [
        ["semseg", "60.00", "mIoU,", "higher", "is", "better"],
        ["normals", "20.00", "mErr,", "lower", "is", "better"],
    ]
    assert text[2].split(maxsplit=1) == ["protocol", RUN.protocol]
    assert text[3].split(maxsplit=1) == ["source", RUN.source]
