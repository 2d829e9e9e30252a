"""docs/backbones.md has all models of its command, and says what a few of them give today."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(DOCS / "make_backbones.py"))


@pytest.fixture(scope="module")
def text() -> str:
    return (DOCS / "backbones.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(text: str) -> dict[str, list[str]]:
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    cells = [line.split(" | ") for line in lines]
    return {row[0]: row[1:] for row in cells if row[0] not in ("model", "---")}


def test_the_page_has_every_model_and_says_when_it_was_made(generator, text, rows):
    assert rows.keys() == generator["models"]().keys()
    assert re.search(r"^Made on \d\d \w+ \d{4} with torch [\d.]+", text, re.MULTILINE)


def test_most_backbones_take_vmt_lite(generator, text, rows):
    assert len(rows) >= 60
    libraries = [library for library, _ in generator["models"]().values()]
    for library, least in (
        ("timm", 40),
        ("torchvision", 4),
        ("transformers", 6),
        ("segmentation_models_pytorch", 2),
    ):
        assert libraries.count(library) >= least
    works = [name for name, cells in rows.items() if cells[2].startswith("works")]
    assert len(works) >= 52
    assert f"Of {len(rows)} models, `vmt_lite` works on {len(works)}," in text


def test_nothing_on_the_page_is_a_surprise(rows):
    """A bold cell is an error that isn't ours, or a start that isn't the backbone's."""
    assert not [name for name, cells in rows.items() if any("**" in cell for cell in cells)]


@pytest.mark.parametrize("name", ["pvt_v2_b0", "convnextv2_atto", "shvit_s1", "mobilevitv2_050"])
def test_a_model_tried_today_gives_what_the_page_says(generator, rows, name):
    _, build = generator["models"]()[name]
    _, strides, _, *cells = generator["row"](name, build)
    assert [strides, *cells] == [rows[name][0], *rows[name][2:]]
