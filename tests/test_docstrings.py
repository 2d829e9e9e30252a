"""Docs coverage: what the docstring of a public name must have.

The rules, for every function and class that a public package exports:

- it has a docstring, which names every parameter;
- where a signature of it says Tensor, a ``Shape`` section;
- where its own code says ``raise``, a ``Raises`` section;
- an example with ``>>>``, which the doctests run;
- of a layer or a method, the paper that it comes from.

What is exempt stands in a list, with the reason.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import textwrap
from typing import Any

import pytest

from peft_dense import methods
from test_names import PUBLIC

OURS = {
    "FanInLinear": "its docstring says whose rule it is, by name",
    "GeneratedBottleneck": "a bottleneck, whose weights another module makes",
    "TaskDict": "a container",
    "LowRank": "one factor of a bilinear map, no layer of any paper by itself",
    "HyperNetwork": "says which methods it is of",
    "TaskEmbedding": "says which methods it is of",
}
EXPORTED = {
    f"{package}.{name}": getattr(importlib.import_module(f"peft_dense.{package}"), name)
    for package, names in PUBLIC.items()
    for name in names.split()
}
CALLABLE = {
    name: value
    for name, value in EXPORTED.items()
    if callable(value) and not (inspect.isclass(value) and issubclass(value, Exception))
}
every_name = pytest.mark.parametrize("name", CALLABLE)


def tree(value: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(value)))


def signatures(value: Any) -> list[str]:
    """Signatures of a function, or of what makes and calls an object of a class."""
    called = ("__init__", "__call__", "forward")
    own = (
        [vars(value)[n] for n in called if n in vars(value)] if inspect.isclass(value) else [value]
    )
    return [str(inspect.signature(each)) for each in own if callable(each)]


@every_name
def test_every_parameter_is_described(name):
    value = CALLABLE[name]
    if (
        dataclasses.is_dataclass(value)
        and all("help" in each.metadata for each in dataclasses.fields(value))
        and dataclasses.fields(value)
    ):
        return  # the options of training, each of which says itself what it does
    about = inspect.getdoc(value)
    assert about, f"{name} has no docstring"
    if inspect.isclass(value) and "__init__" not in vars(value):
        return
    missing = [
        each.name
        for each in inspect.signature(value).parameters.values()
        if not re.search(rf"^ +\*{{0,2}}{each.name}: ", about, re.MULTILINE)
    ]
    assert not missing, f"{name} doesn't say what {', '.join(missing)} is"


@every_name
def test_shapes_are_said_where_tensors_flow(name):
    value = CALLABLE[name]
    if any(re.search(r"\bTensor\b", each) for each in signatures(value)):
        assert "Shape:" in (inspect.getdoc(value) or ""), f"{name} says no shapes"


@every_name
def test_errors_are_said(name):
    value = CALLABLE[name]
    raised = [
        each
        for each in ast.walk(tree(value))
        if isinstance(each, ast.Raise) and "NotImplementedError" not in ast.unparse(each)
    ]
    if raised:
        assert "Raises:" in inspect.getsource(value), f"{name} says not what it raises"


@every_name
def test_there_is_an_example(name):
    assert ">>>" in (inspect.getdoc(CALLABLE[name]) or ""), f"{name} has no example"


@pytest.mark.parametrize("name", [n for n in CALLABLE if n.startswith("nn.")])
def test_a_layer_names_its_paper(name):
    if inspect.isclass(CALLABLE[name]) and name.removeprefix("nn.") not in OURS:
        about = inspect.getdoc(CALLABLE[name]) or ""
        assert re.search(r"\b(19|20)\d\d\b|[Ss]ection|[Ee]quation", about), f"{name} has no source"


@pytest.mark.parametrize("name", methods())
def test_a_method_names_its_paper(name):
    assert importlib.import_module("peft_dense.methods").method(name).paper


def test_what_is_exempt_is_there():
    """So that the list holds no name of the past."""
    assert {name.rpartition(".")[2] for name in CALLABLE} >= OURS.keys()
