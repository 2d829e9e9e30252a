"""The trade-off picture of made-up results has a dot for each, where it belongs."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from peft_dense.errors import DataError, UnknownNameError

FILE = Path(__file__).parents[1] / "examples" / "tradeoff.py"
RESULTS = {  # method: encoder parameters, semseg (higher is better), normals (lower is better)
    "decoders_only": (0, 50.0, 20.0),
    "vmt_lite": (400_000, 60.0, 16.0),
    "multitask_full": (27_000_000, 55.0, 22.0),
}


@pytest.fixture(scope="module")
def tradeoff():
    spec = importlib.util.spec_from_file_location("tradeoff", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tradeoff"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["tradeoff"]


def write(folder: Path, results=RESULTS) -> Path:
    for method, (encoder, semseg, normals) in results.items():
        (folder / method).mkdir(parents=True)
        primary = {"semseg": semseg, "normals": normals}
        text = json.dumps({"method": method, "encoder": encoder, "primary": primary})
        (folder / method / "results.json").write_text(text)
    return folder


def dots(picture: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Centres of the dots, from the left: of neighbouring columns that have the colour."""
    rows, columns = range(picture.height), range(picture.width)
    places = [(x, y) for x in columns for y in rows if picture.getpixel((x, y)) == colour]
    groups: list[list[tuple[int, int]]] = []
    for place in places:
        if not groups or place[0] > groups[-1][-1][0] + 1:
            groups.append([])
        groups[-1].append(place)
    return [tuple(sum(axis) // len(group) for axis in zip(*group, strict=True)) for group in groups]


def test_points_are_counts_and_gains(tradeoff, tmp_path):
    points = tradeoff.main(
        [str(write(tmp_path / "runs")), "--out", str(tmp_path / "new" / "p.png")]
    )
    assert {name: (count, round(gain, 6)) for name, count, gain, _ in points} == {
        "decoders_only": (0, 0.0),
        "vmt_lite": (400_000, 20.0),
        "multitask_full": (27_000_000, 0.0),
    }
    zero, lite, full = dots(Image.open(tmp_path / "new" / "p.png").convert("RGB"), tradeoff.DOT)
    assert zero[0] < lite[0] < full[0]  # parameters, none at the left edge
    assert zero[1] == full[1] > lite[1]  # Delta grows upwards
    # From 0.4 M to 27 M are 1.829 of the three decades between 100 k and 100 M.
    start = tradeoff.LEFT + 56
    wide = tradeoff.WIDTH - tradeoff.RIGHT - start
    assert full[0] - lite[0] == pytest.approx(1.829 / 3 * wide, abs=2)


def test_the_reference_is_chosen(tradeoff, tmp_path):
    points, reference = tradeoff.read([write(tmp_path)], "multitask_full")
    gains = {name: gain for name, _, gain, _ in points}
    assert reference == "multitask_full" and gains["multitask_full"] == 0
    assert gains["vmt_lite"] == pytest.approx(50 * (5 / 55 + 6 / 22))


@pytest.mark.parametrize("only", list(RESULTS))
def test_one_result_is_enough(tradeoff, tmp_path, only):
    points, reference = tradeoff.read([write(tmp_path, {only: RESULTS[only]})], None)
    assert reference == only
    assert len(dots(tradeoff.draw(points, reference), tradeoff.DOT)) == 1


def write_seeds(folder: Path) -> Path:
    for seed, lift in enumerate((1.0, 1.1)):
        for name, semseg in (("decoders_only", 50.0 * lift), ("lora", 60.0)):
            (folder / f"{seed}" / name).mkdir(parents=True)
            text = json.dumps(
                {"method": name, "encoder": 9, "seed": seed, "primary": {"semseg": semseg}}
            )
            (folder / f"{seed}" / name / "results.json").write_text(text)
    return folder


def test_seeds_make_one_dot_with_a_bar_each_over_the_reference_of_its_own(tradeoff, tmp_path):
    points, reference = tradeoff.read([write_seeds(tmp_path)], None)
    one, two = 100 * (60 / 50 - 1), 100 * (60 / 55 - 1)
    assert [point[0] for point in points] == ["decoders_only", "lora"]
    assert points[0][2:] == (0, 0)
    assert points[1][2:] == pytest.approx(((one + two) / 2, abs(one - two) / 2**0.5))
    picture = tradeoff.draw(points, reference)
    bar = [
        y
        for x in range(picture.width)
        for y in range(picture.height)
        if picture.getpixel((x, y)) == tradeoff.BAR
    ]
    dot = dots(picture, tradeoff.DOT)[0][1]
    assert min(bar) < dot < max(bar)


def test_seeds_that_cannot_be_compared(tradeoff, tmp_path):
    write_seeds(tmp_path)
    (tmp_path / "0" / "decoders_only" / "results.json").unlink()
    with pytest.raises(DataError, match="has seed 0, and there is no decoders_only with that seed"):
        tradeoff.read([tmp_path], None)
    with pytest.raises(DataError, match="are both decoders_only with seed 1; name folders"):
        tradeoff.read([tmp_path / "1", tmp_path / "1"], None)


def test_wrong_results(tradeoff, tmp_path):
    with pytest.raises(DataError, match="no results.json in .*; run train.py first"):
        tradeoff.main([str(tmp_path)])
    write(tmp_path)
    with pytest.raises(UnknownNameError, match="'vmt_light'; did you mean 'vmt_lite'"):
        tradeoff.main([str(tmp_path), "--reference", "vmt_light"])
    write(tmp_path / "more", {"lora": (9, 0.0, 20.0)})
    with pytest.raises(DataError, match="no Delta over lora: a score is zero or NaN"):
        tradeoff.main([str(tmp_path), "--reference", "lora"])
