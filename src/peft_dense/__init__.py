"""Adapt a frozen hierarchical vision transformer to many dense tasks at once."""

from peft_dense._version import __version__
from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import Family, register_family
from peft_dense.dense import DenseModel
from peft_dense.inject import inject
from peft_dense.ledger import Ledger
from peft_dense.methods import Method, methods
from peft_dense.nn import (
    DecomposedHyperNetwork,
    KroneckerLinear,
    LayerwiseScalingKernel,
    VMTAdapter,
)

__all__ = [
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
    "register_family",
]
