"""benchmarks/speed.py: in miniature it says, per model, what it measured; no timing is asserted."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed.py"


def test_each_model_has_its_ratios(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))  # the script puts its folder there
    threads = torch.get_num_threads()
    out = tmp_path / "found.json"
    asked = "--backbone pvt_v2_b0 --size 64 --batch 1 --methods vmt_lite lora --tasks 1 2"
    try:
        runpy.run_path(str(SCRIPT))["main"]([*asked.split(), "--rounds", "1", "--json", str(out)])
    finally:
        torch.set_num_threads(threads)
    found = json.loads(out.read_text())["ratios"]
    bound, *others = found
    assert others == [f"{name}, T = {count}" for name in ("vmt_lite", "lora") for count in (1, 2)]
    for kind in ("step", "inference"):
        assert {each["median"] for each in found[bound][kind].values()} == {1.0}
    printed = capsys.readouterr().out
    assert all(name in printed for name in found)
