"""What a launcher asks for and training doesn't do is refused by its name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("accelerate")

from accelerate import Accelerator

from peft_dense.errors import HyperparameterError
from peft_dense.training.launcher import check_launcher, make_accelerator


@pytest.mark.parametrize(
    ("variable", "value", "named", "remedy"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP", "multi-GPU or multi-CPU"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed", "multi-GPU or multi-CPU"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron-LM", "multi-GPU or multi-CPU"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "parallelism", "multi-GPU or multi-CPU"),
        ("ACCELERATE_MIXED_PRECISION", "fp16", "mixed precision fp16", "no or bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "mixed precision fp8", "no or bf16"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "dynamo", "--compile"),
    ],
)
def test_what_is_not_supported_is_named(
    variable: str, value: str, named: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(HyperparameterError, match="the launcher asks for") as error:
        make_accelerator(cpu=True)
    assert named in str(error.value) and remedy in str(error.value)


def test_accumulation_is_the_recipes() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    with pytest.raises(HyperparameterError, match="--accumulate 4"):
        check_launcher(accelerator)


def test_what_is_supported_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.setenv(variable, "false")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    check_launcher(make_accelerator(cpu=True))


def test_the_command_says_it_in_one_line() -> None:
    command = [sys.executable, "-m", "peft_dense", "train", "--cpu", "--no-pretrained"]
    done = subprocess.run(
        command,
        env={**os.environ, "ACCELERATE_USE_FSDP": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: the launcher asks for FSDP")
