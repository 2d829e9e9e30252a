"""``peft-dense params --papers``: our counts beside the cells that two papers print."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from peft_dense import papers
from peft_dense.cli.output import table
from peft_dense.counting import Counter, build

__all__ = ["beside_papers"]


def beside_papers(channels: dict[str, int], as_json: bool) -> str:
    """Count every row that the papers print, and set both side by side.

    Args:
        channels: Of the heads' outputs, by task.
        as_json: Whether to give JSON instead of tables.
    """
    counter = Counter(build(papers.BACKBONE, {}), channels)
    found: list[dict[str, Any]] = []
    rows = [["", "encoder", "printed", "", "all", "printed", "", "in", "certainty"]]
    notes = []
    for row in papers.ROWS:
        count = counter.count(row.method, **row.options)
        encoder, total = count["encoder"], count["all"]
        ours = papers.verdict(encoder, row.encoder), papers.verdict(total, row.total)
        found.append(
            {
                "method": row.method,
                "hyperparameters": dict(row.options),
                "encoder": {"counted": encoder, "printed": row.encoder, "verdict": ours[0]},
                "all": {"counted": total, "printed": row.total, "verdict": ours[1]},
                "places": [papers.PLACES[place] for place in row.places.split()],
                "certainty": row.certainty,
                "note": row.note,
                "fits": row.fits and {"encoder": row.fits[0], "all": row.fits[1]},
            }
        )
        cells = [f"{encoder:,}", row.encoder, ours[0], f"{total:,}", row.total or "-", ours[1]]
        rows.append([row.label, *cells, row.places, row.certainty])
        if row.note:
            notes.append(f"{row.label}: {row.note}")
        if row.fits:
            notes[-1] += f" Those counts: {row.fits[0]:,} and {row.fits[1]:,}."
    if as_json:
        return json.dumps(found, indent=1)
    lines = [
        f"Trainable parameters on {papers.BACKBONE}, four tasks,",
        "beside the printed cells in millions: ok, or by how many millions we are off.",
        "",
        table(rows, align="<>>>>>><<"),
        "",
        *(f"{short}: {place}" for short, place in papers.PLACES.items()),
        "",
        *(textwrap.fill(note, 96, subsequent_indent="  ") for note in notes),
    ]
    return "\n".join(lines)
