"""Layers that know no backbone and can be used alone."""

from __future__ import annotations

from peft_dense.nn.bottleneck import Bottleneck, apply_bottleneck
from peft_dense.nn.convpass import ConvpassAdapter
from peft_dense.nn.dora import DoRALinear
from peft_dense.nn.fan_in import FanInLinear
from peft_dense.nn.generated import GeneratedBottleneck
from peft_dense.nn.hypernetwork import DecomposedHyperNetwork, HyperNetwork, TaskEmbedding
from peft_dense.nn.kronecker import (
    KroneckerLinear,
    KroneckerRule,
    kronecker_apply,
    kronecker_sum,
)
from peft_dense.nn.lowrank import LowRank, LowRankLinear
from peft_dense.nn.mona import MonaAdapter
from peft_dense.nn.prompts import Prompts
from peft_dense.nn.scale_shift import ScaleShift
from peft_dense.nn.scaling_kernel import LayerwiseScalingKernel, VectorScalingKernel
from peft_dense.nn.task_dict import TaskDict
from peft_dense.nn.vmt import VMTAdapter

__all__ = [
    "Bottleneck",
    "ConvpassAdapter",
    "DecomposedHyperNetwork",
    "DoRALinear",
    "FanInLinear",
    "GeneratedBottleneck",
    "HyperNetwork",
    "KroneckerLinear",
    "KroneckerRule",
    "LayerwiseScalingKernel",
    "LowRank",
    "LowRankLinear",
    "MonaAdapter",
    "Prompts",
    "ScaleShift",
    "TaskDict",
    "TaskEmbedding",
    "VMTAdapter",
    "VectorScalingKernel",
    "apply_bottleneck",
    "kronecker_apply",
    "kronecker_sum",
]
