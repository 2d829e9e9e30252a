"""Scored runs in one table: cells, gains and the order, from made-up runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")

from peft_dense import papers
from peft_dense.errors import DataError
from peft_dense.methods import method
from peft_dense.training.comparison import compare


def run(folder: Path, label: str, seed: int, semseg: float, depth: float, **more: Any) -> Any:
    """A run's folder, and its scores."""
    place = folder / f"{label}-{seed}"
    place.mkdir()
    costs = {"seconds": 30.0, "steps": 10, "encoder": 1234, "all": 56789, "peak_memory": 3 * 2**29}
    (place / "results.json").write_text(json.dumps({**costs, **more}))
    (place / "run.json").write_text(json.dumps({"about": {}, "recipe": {"seed": seed, "lr": 1}}))
    return place, {
        "label": label,
        "seed": seed,
        "metrics": {"semseg": ["mIoU", True], "depth": ["rmse", False]},
        "protocol": "made up",
        "scores": {"semseg": {"mIoU": semseg, "acc": 1.0}, "depth": {"rmse": depth}},
    }


def test_a_row_has_means_deviations_and_gains_over_seeds(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "decoders_only", 0, 50.0, 2.0),
        run(tmp_path, "decoders_only", 1, 40.0, 1.0, peak_memory=None),
        run(tmp_path, "lora", 0, 55.0, 1.0, peak_memory=None),
        run(tmp_path, "lora", 1, 44.0, 1.0, seconds=50.0, peak_memory=None),
    ]
    header, first, second, _, note = compare(runs).splitlines()
    assert header.split()[1:5] == ["semseg", "mIoU↑", "depth", "rmse↓"]
    # Gains of LoRA: (10 + 50) / 2 and (10 + 0) / 2 percent.
    assert "45.00 ± 7.07" in first and "+0.00 ± 0.00" in first
    assert "49.50 ± 7.78" in second and "1.00 ± 0.00" in second and "+17.50 ± 17.68" in second
    assert first.split()[-4:] == ["1,234", "56,789", "3.00", "1.50"]
    assert second.split()[-4:] == ["1,234", "56,789", "4.00", "-"]
    assert note.startswith("made up; 2 seed(s)") and "over decoders_only, seed by seed" in note
    with pytest.raises(DataError, match="no run of lora with seed 1"):
        compare(runs[:3], reference="lora")
    assert "lora (1 of 2 seeds)" in compare(runs[:3])


def test_a_page_gets_a_table_of_as_many_columns_everywhere(tmp_path: Path) -> None:
    runs = [run(tmp_path, "decoders_only", 0, 50.0, 2.0), run(tmp_path, "lora", 0, 55.0, 1.0)]
    *lines, empty, note = compare(runs, markdown=True).splitlines()
    assert empty == "" and "1 seed(s)" in note
    cells = [line.strip("| ").split(" | ") for line in lines]
    assert {len(row) for row in cells} == {8} and len(cells) == 4
    assert cells[1] == ["---", *["--:"] * 7]
    assert [row[0] for row in cells] == ["method", "---", "decoders_only", "lora"]


def test_gains_that_are_the_papers_own_have_their_order(tmp_path: Path) -> None:
    """A method that the papers print several rows of counts by the one with our defaults."""
    runs, several = [], 0
    for name in dict.fromkeys(row.method for row in papers.ROWS):
        rows = [row for row in papers.ROWS if row.method == name]
        usual = [row for row in rows if method(name, **row.options) == method(name)]
        several += len(rows) > 1 and bool(usual)
        delta = (usual or rows)[-1 if usual else 0].delta
        runs.append(run(tmp_path, name, 0, 100 + delta, 1.0))
    said = compare(runs, order=True).splitlines()[-1]
    assert several and f"over {len(runs)} methods: 1.00 (Spearman)" in said
    assert "Rank correlation" not in compare(runs)
