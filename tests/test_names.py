"""A name means one thing: no function hides a module, and what is exported is there."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import peft_dense

MODULES = [m.name for m in pkgutil.walk_packages(peft_dense.__path__, "peft_dense.")]


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__")])
def test_no_name_hides_a_module(name):
    """``import a.b as m`` gives the attribute ``b`` of ``a``, so that must be the module."""
    module = importlib.import_module(name)
    parent, _, leaf = name.rpartition(".")
    assert isinstance(getattr(importlib.import_module(parent), leaf), ModuleType)
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), exported


def test_methods_is_a_module_and_a_function():
    import peft_dense.methods as package
    from peft_dense import methods

    assert methods is package
    assert "vmt_lite" in methods() == sorted(methods())
    assert package.register.__module__ == "peft_dense.methods.base"


def test_the_shop_window():
    assert set(peft_dense.__all__) == {
        "AdaptedBackbone",
        "DecomposedHyperNetwork",
        "DenseModel",
        "Family",
        "KroneckerLinear",
        "LayerwiseScalingKernel",
        "Ledger",
        "Method",
        "VMTAdapter",
        "__version__",
        "inject",
        "methods",
        "predict",
        "register_family",
    }
    assert all(hasattr(peft_dense, name) for name in peft_dense.__all__)
