"""Which model is the best: a rule over scores alone, that no order of validations bends."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from small_run import TASKS, make_trainer

from peft_dense.tasks import task
from peft_dense.training import quality
from peft_dense.training import trainer as trainer_module
from peft_dense.training.run_folder import read_weights

TWO = {name: task(name) for name in ("semseg", "normals")}


def best_of(scores: list[tuple[float, float]]) -> tuple[float, float]:
    found = [
        quality(dict(zip(TWO, each, strict=True)), TWO, step) for step, each in enumerate(scores)
    ]
    return scores[max(range(len(scores)), key=found.__getitem__)]


def test_a_bad_first_validation_does_not_bend_the_choice() -> None:
    """From (2 mIoU, 40 degrees), 67 mIoU at 22 degrees is no better than 66 at 18."""
    for order in itertools.permutations([(2.0, 40.0), (67.0, 22.0), (66.0, 18.0)]):
        assert best_of(list(order)) == (66.0, 18.0)


def test_a_task_that_starts_at_zero_counts() -> None:
    assert best_of([(0.0, 20.0), (30.0, 20.5)]) == (30.0, 20.5)
    assert best_of([(0.0, 20.0), (0.1, 20.0)]) == (0.1, 20.0)


def test_a_score_that_is_no_number_never_wins() -> None:
    for none in (math.nan, math.inf, -math.inf):
        for order in ([(50.0, none), (10.0, 30.0)], [(10.0, 30.0), (50.0, none)]):
            assert best_of(order) == (10.0, 30.0)
    # A task that nothing has labels for says nothing; the other decides.
    assert best_of([(10.0, math.nan), (20.0, math.nan), (15.0, math.nan)]) == (20.0, math.nan)


def test_of_equals_the_later_is_kept() -> None:
    assert quality({"semseg": 5.0}, TWO, 9) > quality({"semseg": 5.0}, TWO, 3)
    assert quality({"semseg": math.nan}, TWO, 9) > quality({"semseg": math.nan}, TWO, 3)
    assert quality({"semseg": 5.0}, TWO) == quality({"semseg": 5.0}, TWO, 0)


def test_perfection_in_one_task_does_not_hide_the_other() -> None:
    assert math.isfinite(quality({"semseg": 10.0, "normals": 0.0}, TWO)[1])
    assert best_of([(10.0, 0.0), (20.0, 0.0)]) == (20.0, 0.0)


scores = st.one_of(st.just(math.nan), st.floats(0, 100), st.just(0.0))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=4, unique_by=repr))
def test_no_order_of_validations_changes_the_best(found: list[tuple[float, float]]) -> None:
    def key(each: tuple[float, float]) -> tuple[int, float]:
        return quality(dict(zip(TWO, each, strict=True)), TWO)[:2]

    winners = {key(best_of(list(order))) for order in itertools.permutations(found)}
    assert winners == {max(map(key, found))}


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 100), st.floats(0.1, 90), st.floats(0, 5), st.floats(0, 5))
def test_better_in_every_task_is_better(
    semseg: float, normals: float, more: float, less: float
) -> None:
    worse = quality({"semseg": semseg, "normals": normals + less}, TWO)
    assert quality({"semseg": semseg + more, "normals": normals}, TWO) >= worse


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_folder_keeps_the_best_of_the_run(
    ema: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three validations; the middle one is the best, and what was scored then is in best/."""
    trainer = make_trainer(tmp_path, steps=6, eval_every=2, ema=ema)
    weights: list[dict[str, torch.Tensor]] = []
    values = iter([20.0, 60.0, 40.0])

    def scored(model: Any, *_: object, **__: object) -> dict[str, dict[str, float]]:
        weights.append({k: v.clone() for k, v in model.trainable_state_dict().items()})
        value = next(values)
        return {
            name: {each.metric: value if each.higher_is_better else 1 / value}
            for name, each in trainer.tasks.items()
        }

    monkeypatch.setattr(trainer_module, "evaluate", scored)
    result = trainer.fit()
    assert result["best"]["step"] == 4 and result["best"]["primary"]["semseg"] == 60
    assert result["primary"]["semseg"] == 40 and set(result["primary"]) == set(TASKS)
    assert result["label"] == "run" and result["method"] == "vmt_lite"
    for folder, which in (("best", 1), ("last", 2)):
        kept = read_weights(tmp_path / folder)
        assert kept.keys() == weights[which].keys()
        assert all(torch.equal(kept[name], value) for name, value in weights[which].items()), folder
