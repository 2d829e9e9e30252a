"""Adapt a frozen hierarchical vision transformer to many dense tasks at once."""

from typing import TYPE_CHECKING

from peft_dense._version import __version__
from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import Family, register_family
from peft_dense.dense import DenseModel
from peft_dense.injection import inject
from peft_dense.ledger import Ledger
from peft_dense.methods import Method
from peft_dense.nn import (
    DecomposedHyperNetwork,
    KroneckerLinear,
    LayerwiseScalingKernel,
    VMTAdapter,
)
from peft_dense.predicting import predict

if TYPE_CHECKING:
    # The package is callable: ``peft_dense.methods`` is a module and a function at once.
    from peft_dense.methods import methods

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
    "predict",
    "register_family",
]
