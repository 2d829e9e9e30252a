"""A record of a run is its steps, comes back from its file, and is drawn as it is."""

from __future__ import annotations

import csv
import math

import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from peft_dense import inject
from peft_dense.conflict import ConflictRecorder
from peft_dense.conflict.picture import draw
from peft_dense.errors import DataError, HyperparameterError, UnknownNameError
from zoo import build

ANGLES = (30.0, 60.0, 120.0, 150.0)


def losses_at(w: nn.Parameter, degrees: float) -> dict[str, torch.Tensor]:
    """Two losses whose gradients on w make this angle."""
    angle = math.radians(degrees)
    return {"a": w[0], "b": math.cos(angle) * w[0] + math.sin(angle) * w[1]}


def record(angles=ANGLES, name: str = "run") -> ConflictRecorder:
    w, v = (nn.Parameter(torch.ones(2, dtype=torch.double)) for _ in range(2))
    recorder = ConflictRecorder({"w": [w], "v": [v]}, name)
    for degrees in angles:
        recorder.record(losses_at(w, degrees))
    return recorder


def test_angles_are_those_of_the_steps():
    recorder = record()
    assert_close(recorder.angles()[:, 0].tolist(), list(ANGLES))
    assert_close(recorder.angles("w"), recorder.angles())
    assert recorder.angles("v").isnan().all()
    assert len(recorder.reports) == 4


def test_histogram_shares_sum_to_one():
    shares, edges = record().histogram(bins=6)  # of 30 degrees each
    assert edges.tolist() == [0, 30, 60, 90, 120, 150, 180]
    shares, edges = record((20, 20, 100, 175)).histogram(bins=6)
    assert shares.tolist() == [0.5, 0, 0, 0.25, 0, 0.25]
    assert record().histogram()[0].sum() == 1
    assert not record().histogram(layer="v")[0].any()


def test_share_of_conflict_counts_what_is_over_90():
    assert record().share_of_conflict() == 0.5
    assert record((10, 90, 91, 170, 180)).share_of_conflict() == 0.6
    assert math.isnan(record().share_of_conflict("v"))


def test_tasks_may_come_in_any_order_but_stay_the_same():
    recorder = record((40,))
    w = recorder._parameters["w"][0]
    recorder.record(dict(reversed(losses_at(w, 70).items())))
    assert recorder.reports[1].tasks == ("a", "b")
    assert_close(recorder.angles()[:, 0].tolist(), [40.0, 70.0])
    with pytest.raises(UnknownNameError, match="unknown task 'c'"):
        recorder.record({"a": w[0], "b": w[1], "c": w[1]})
    with pytest.raises(DataError, match="no loss of 'b', recorded before"):
        recorder.record({"a": w[0]})


def test_accumulate_trains():
    w = nn.Parameter(torch.ones(2, dtype=torch.double))
    ConflictRecorder({"w": [w]}).record(losses_at(w, 90), accumulate=True)
    assert_close(w.grad, torch.ones(2, dtype=torch.double))


def test_a_model_names_its_record_and_what_it_shares():
    recorder = ConflictRecorder(inject(build("swin"), "shared_adapter", tasks=["a", "b"]))
    assert recorder.name == "shared_adapter"
    assert "adapters.layers.0.blocks.0.mlp.branch" in recorder._parameters


def test_json_comes_back(tmp_path):
    recorder = record()
    again = ConflictRecorder.load(recorder.save(tmp_path / "made" / "run.json"))
    assert again.name == "run" and again.reports[0].layers == ("w", "v")
    assert torch.equal(again.angles("w"), recorder.angles("w"))
    with pytest.raises(HyperparameterError, match="no parameters to measure"):
        again.record({"a": torch.ones(()), "b": torch.ones(())})


def test_csv_has_a_line_a_step_layer_and_pair(tmp_path):
    lines = list(csv.reader(record().save(tmp_path / "run.csv").open()))
    assert lines[0] == ["step", "layer", "task", "other", "angle"]
    assert lines[1] == ["0", "all", "a", "b", "30.0000"]
    assert lines[-1] == ["3", "v", "a", "b", "nan"]
    assert len(lines) == 1 + 4 * 3


def test_wrong_files(tmp_path):
    with pytest.raises(DataError, match=r"run\.txt ends in '\.txt'; expected \.csv or \.json"):
        record().save(tmp_path / "run.txt")
    with pytest.raises(DataError, match="nothing was recorded; call record"):
        record(()).save(tmp_path / "run.json")
    with pytest.raises(DataError, match="nothing was recorded"):
        record(()).picture(tmp_path / "run.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.json").write_text('{"name": "run"}')
    for name in ("run.json", "none.json"):
        with pytest.raises(DataError, match=f"{name} is no record of conflicts"):
            ConflictRecorder.load(tmp_path / name)


# ------------------------------------------------------------------------------ picture


def bars(panel: Image.Image) -> tuple[int, int]:
    """Pixels of bars below and over 90 degrees."""
    colours = {colour: count for count, colour in panel.getcolors(1 << 20)}
    return colours.get((0, 128, 128), 0), colours.get((214, 96, 77), 0)


def test_the_picture_has_a_panel_a_record(tmp_path):
    one, other = record(), record((20, 25, 40, 100), "other")
    picture = Image.open(one.picture(tmp_path / "made" / "four.png", other))
    single = Image.open(one.picture(tmp_path / "one.png"))
    assert picture.size == (2 * single.width, single.height)


def test_bars_are_as_large_as_their_shares():
    def panel(*shares: float) -> tuple[int, int]:
        return bars(draw([("run", shares, 0.5)]))

    left, right = panel(0.5, 0.5)
    assert left == right > 1000
    assert panel(1, 0)[1] == panel(0, 1)[0] == 0
    low, high = panel(0.25, 0.75)
    assert high / low == pytest.approx(3, rel=0.03)


def test_panels_have_one_scale():
    picture = draw([("a", (0.5, 0.5), 0.5), ("b", (0.0, 1.0), 1.0)])
    half = picture.width // 2
    first = bars(picture.crop((0, 0, half, picture.height)))
    second = bars(picture.crop((half, 0, 2 * half, picture.height)))
    assert second[1] / first[1] == pytest.approx(2, rel=0.03)


def test_an_empty_histogram_is_drawn():
    assert bars(draw([("run", (0.0, 0.0), math.nan)])) == (0, 0)
