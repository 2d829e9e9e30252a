"""A user's script is right by mypy --strict and by pyright in its strict mode, and it runs.

Pyright is run as basedpyright, which brings its own node.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import timm

from peft_dense.methods import base

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("user_script.py")
MISTAKES = {
    "assert_type(encoder(images), dict[str, list[Tensor]])": "encoder(images).shape",
    "assert_type(model(images), dict[str, Tensor])": "model(images)[0]",
    "assert_type(peft_dense.methods(), list[str])": "peft_dense.methods('vmt')",
    "assert_type(encoder.ledger().encoder, int)": "encoder.ledger().encoders",
    "path: nn.Module, info: BackboneInfo, tasks: Sequence[str]": (
        "path: nn.Module, info: int, tasks: Sequence[str]"
    ),
}


def mypy(folder: Path) -> list[str]:
    """Errors of ``mypy --strict``; with our settings, as a run on src/ has filled the cache."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", str(folder)]
    paths = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    said = subprocess.run(command, cwd=ROOT, env=paths, capture_output=True, text=True, check=False)
    assert said.returncode in (0, 1), said.stdout + said.stderr
    return [line for line in said.stdout.splitlines() if ": error:" in line]


def pyright(folder: Path) -> list[str]:
    """Errors of pyright, all of whose checks are on."""
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src")]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    said = subprocess.run(
        [*command, "--outputjson", "-p", str(folder)], capture_output=True, text=True, check=False
    )
    assert said.returncode in (0, 1), said.stdout + said.stderr
    found = json.loads(said.stdout)
    assert found["summary"]["filesAnalyzed"] == 1
    return [
        f"{one['range']['start']['line'] + 1}: {one['message']}"
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    ]


both_checkers = pytest.mark.parametrize("checker", [mypy, pyright])


@both_checkers
def test_the_script_is_right(checker, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT.read_text(encoding="utf-8"))
    assert checker(tmp_path) == []


@both_checkers
def test_every_mistake_is_seen(checker, tmp_path):
    """So the names aren't Any, of which everything would be right."""
    text = SCRIPT.read_text(encoding="utf-8")
    lines = []
    for right, wrong in MISTAKES.items():
        assert text.count(right) == 1
        lines.append(text.count("\n", 0, text.index(right)) + 1)
        text = text.replace(right, wrong)
    (tmp_path / "script.py").write_text(text)
    found = "\n".join(checker(tmp_path))
    # A method whose signature differs is told at its name, a line above.
    missed = [n for n in lines if f"{n}: " not in found and f"{n - 1}: " not in found]
    assert not missed, found


def test_the_script_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    runpy.run_path(str(SCRIPT))["main"](timm.create_model("pvt_v2_b0").eval(), tmp_path)
