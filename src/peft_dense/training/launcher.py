"""Checks of the launcher: it may ask for processes and bfloat16, and nothing else."""

from __future__ import annotations

import os

from accelerate import Accelerator

from peft_dense.errors import HyperparameterError

__all__ = ["check_launcher", "make_accelerator"]

_PLUGINS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor or context parallelism",
}
_REPLICAS = (
    "Every process holds the whole model here: choose multi-GPU or multi-CPU in `accelerate "
    "config`, or use torchrun"
)
_KINDS = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_NPU", "MULTI_XPU", "MULTI_MLU", "MULTI_HPU")


def make_accelerator(cpu: bool = False) -> Accelerator:
    """Make the accelerator that the environment describes.

    Raises:
        HyperparameterError: The launcher asks for what this training doesn't do.
    """
    _check_environment()
    accelerator = Accelerator(cpu=cpu)
    check_launcher(accelerator)
    return accelerator


def check_launcher(accelerator: Accelerator) -> None:
    """Check that the launcher asks for nothing that this training doesn't do.

    Raises:
        HyperparameterError: It does.
    """
    _check_environment()
    kind = accelerator.distributed_type.name
    if kind not in _KINDS:
        raise _refusal(kind.replace("_", " "), _REPLICAS)
    if accelerator.mixed_precision not in ("no", "bf16"):
        raise _refusal(f"mixed precision {accelerator.mixed_precision}", "Choose no or bf16")
    if (parts := accelerator.gradient_accumulation_steps) != 1:
        raise _refusal(
            f"{parts} gradient accumulation steps", f"Give --accumulate {parts} to the run instead"
        )


def _check_environment() -> None:
    """Read what `accelerate launch` sets before accelerate does, whose errors say less."""
    for variable, name in _PLUGINS.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise _refusal(name, _REPLICAS)
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if precision not in ("no", "bf16"):
        raise _refusal(f"mixed precision {precision}", "Choose no or bf16")
    if os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower() != "no":
        raise _refusal("torch.compile by a dynamo backend", "Give --compile to the run instead")


def _refusal(asked: str, remedy: str) -> HyperparameterError:
    return HyperparameterError(
        f"the launcher asks for {asked}, which this training doesn't do. {remedy}."
    )
