"""Scored runs beside the papers' cells, from made-up runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")

from peft_dense import papers
from peft_dense.errors import DataError
from peft_dense.training.paper_cells import beside_papers


def run(label: str, seed: int, semseg: float, parts: float, sal: float, normals: float) -> Any:
    values = {"semseg": semseg, "human_parts": parts, "sal": sal, "normals": normals}
    scores = {task: {papers.METRICS[task]: value} for task, value in values.items()}
    return Path(f"{label}-{seed}"), {"label": label, "seed": seed, "scores": scores}


def test_a_row_has_ours_theirs_and_the_difference() -> None:
    runs = [
        run("single_task_full", 0, 60.0, 60.0, 60.0, 20.0),
        run("single_task_full", 1, 60.0, 60.0, 60.0, 20.0),
        run("vmt", 0, 66.0, 66.0, 66.0, 18.0),
        run("vmt", 1, 60.0, 60.0, 60.0, 20.0),
        run("lora", 0, 1.0, 1.0, 1.0, 1.0),
    ]
    _, single, vmt, _, note = beside_papers(runs).splitlines()
    assert "60.00 (67.21, -7.21)" in single and "+0.00" in single
    # vmt at its defaults is the row of ratio 4; the seeds gain 10 % and nothing.
    assert "63.00 (71.60, -8.60)" in vmt and "19.00 (16.41, +2.59)" in vmt
    assert vmt.endswith("5.00 (3.96, +1.04)")
    assert note.endswith("Not in the papers' tables: lora.")


def test_the_papers_own_cells_differ_by_nothing_but_their_averages() -> None:
    runs = [run(row.label, 0, *row.scores.values()) for row in papers.ROWS if row.scores]
    table = beside_papers(runs, markdown=True).split("\n\n")[0].splitlines()[2:]
    assert len(table) == len(runs)
    for line in table:
        *cells, _delta = [cell.strip() for cell in line.strip("|").split("|")][1:]
        assert all(cell.endswith("+0.00)") for cell in cells), line


def test_a_task_that_was_not_run_leaves_its_cell_and_delta_empty() -> None:
    place, found = run("bitfit", 0, 60.0, 60.0, 60.0, 20.0)
    del found["scores"]["normals"]
    line = beside_papers([(place, found)]).splitlines()[1]
    assert "- (19.42)" in line and line.endswith("- (-4.6)")


def test_runs_that_the_papers_do_not_have() -> None:
    with pytest.raises(DataError, match="dora: not in the papers' tables, which have single_task"):
        beside_papers([run("dora", 0, 1.0, 1.0, 1.0, 1.0)])
