"""docs/methods.md is what its command writes."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from peft_dense.methods import method, methods

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(DOCS / "make_methods.py"))


def test_the_page_is_what_its_command_writes(generator):
    kept = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert kept == generator["page"](), "run python docs/make_methods.py"


@pytest.mark.parametrize("name", methods())
def test_every_method_has_an_equation(generator, name):
    assert generator["find_equation"](method(name)), f"add {name} to EQUATIONS in make_methods.py"


def test_no_equation_is_left_over(generator):
    assert generator["EQUATIONS"].keys() <= set(methods())
