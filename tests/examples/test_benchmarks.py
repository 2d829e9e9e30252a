"""The benchmarks in miniature say, per thing measured, what they found; no timing is asserted."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2

from peft_dense import inject
from peft_dense.errors import UnknownNameError

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = ("--backbone", "pvt_v2_b0", "--rounds", "1")
SMALL = (*TINY, "--size", "64", "--batch", "1")


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a script; give its JSON, of which the printed tables and the plot have every name."""
    monkeypatch.setattr("sys.path", list(sys.path))  # the scripts put their folder there
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    threads = torch.get_num_threads()

    def call(script: str, *words: str) -> dict[str, Any]:
        out, plot = tmp_path / "found.json", tmp_path / "found.svg"
        main = runpy.run_path(str(FOLDER / script))["main"]
        main([*words, "--json", str(out), "--plot", str(plot)])
        whole = json.loads(out.read_text())
        printed = capsys.readouterr().out
        drawn = "".join(ElementTree.parse(plot).getroot().itertext())
        for group, lines in whole["found"].items():
            assert all(name in printed and name in drawn for name in (group, *lines))
        assert all(note in printed for note in whole["notes"])
        return whole

    yield call
    torch.set_num_threads(threads)


def only(found: dict[str, Any]) -> dict[str, Any]:
    (lines,) = found["found"].values()
    return lines


def test_speed_has_ratios_of_each_model(run) -> None:
    whole = run("speed.py", *SMALL, "--methods", "vmt_lite", "lora rank=2", "--tasks", "1", "2")
    bound, *others = only(whole).items()
    assert [name for name, _ in others] == [
        "vmt_lite, T = 1",
        "vmt_lite, T = 2",
        "lora rank=2, T = 1",
        "lora rank=2, T = 2",
        "lora rank=2, T = 2, one path",
    ]
    assert {cell["median"] for cell in bound[1].values()} == {1.0}
    assert all(cells.keys() == bound[1].keys() for _, cells in others)
    assert any("No GPU" in note for note in whole["notes"])


def test_one_path_means_the_pass_of_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    net = PyramidVisionTransformerV2(depths=(1,), embed_dims=(32,), num_heads=(1,), sr_ratios=(1,))
    adapted = inject(net, "lora", tasks=["one", "other"])
    where = runpy.run_path(str(FOLDER / "speed.py"))["Where"](
        torch.device("cpu"), "float32", "eager"
    )
    x = torch.randn(1, 3, 32, 32)
    assert where.call(adapted, None)(x).keys() == {"one", "other"}
    assert where.call(adapted, ["other"])(x).keys() == {"other"}


def test_speed_of_dense_models_and_of_merged_ones(run) -> None:
    methods = ("decoders_only", "polyhistor_lite", "vmt_lite")
    words = ("--methods", *methods, "--tasks", "1", "--dense", "--merged")
    whole = run("speed.py", *SMALL, *words)
    lines = only(whole)
    assert "vmt_lite, T = 1, DenseModel" in lines
    assert "decoders_only, T = 1, DenseModel" in lines and "decoders_only, T = 1" not in lines
    baked = "polyhistor_lite, baked, over plain adapters of polyhistor_lite"
    assert all(column.startswith("inference") for column in lines[baked])
    assert any("vmt_lite can't be merged" in note for note in whole["notes"])
    generated, plain = lines["polyhistor_lite, T = 1"], lines["plain adapters of polyhistor_lite"]
    assert generated["step, FLOPs"]["median"] > plain["step, FLOPs"]["median"] > 1


def test_a_plot_has_the_columns_that_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    plot, out = tmp_path / "memory.svg", tmp_path / "memory.json"
    main = runpy.run_path(str(FOLDER / "memory.py"))["main"]
    words = [*SMALL, "--methods", "lora", "--tasks", "1", "--plot", str(plot), "--json", str(out)]
    main([*words, "--draw", "peak, MiB"])
    drawn = "".join(ElementTree.parse(plot).getroot().itertext())
    assert "peak, MiB" in drawn and "gradients" not in drawn and "peak of a step" not in drawn
    out.unlink()
    with pytest.raises(UnknownNameError, match="peak, MiB"):
        main([*words, "--draw", "peak, MB"])
    assert out.exists() and capsys.readouterr().out.count("| frozen backbone |") == 2


def test_flops_are_those_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    flops = runpy.run_path(str(FOLDER / "timing.py"))["flops"]
    layer, x = torch.nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    assert flops(lambda: layer(x)) == 2 * 3 * 5 * 7
    assert flops(lambda: layer(x).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_memory_has_paths_one_by_one_and_all_at_once(run) -> None:
    lines = only(run("memory.py", *SMALL, "--methods", "lora", "vmt_lite", "--tasks", "2"))
    ways = ("lora, T = 2, all at once", "lora, T = 2, path by path")
    assert set(lines) == {"frozen backbone", *ways, "vmt_lite, T = 2"}
    once, one_by_one = (lines[way]["peak, MiB"]["median"] for way in ways)
    assert once > one_by_one > 0
    gradients = {lines[way]["of it gradients, MiB"]["median"] for way in ways}
    assert len(gradients) == 1 and 0 < gradients.pop() < one_by_one


def test_a_missing_peer_and_checkout_are_said(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    whole = run("peers.py", *SMALL, "--checkout", "/nowhere", "no_such_module:make")
    assert [name for name in only(whole) if "ours" not in name] == ["frozen backbone"]
    first, second = whole["notes"]
    assert "HF peft isn't installed" in first and "no_such_module" in second


def test_peers_are_timed_beside_ours(run, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    other = "import torch\ndef make(): return torch.nn.Conv2d(3, 4, 1)\n"
    (tmp_path / "other_encoder.py").write_text(other)
    lines = only(run("peers.py", *SMALL, "--checkout", str(tmp_path), "other_encoder:make"))
    assert sum("HF peft 0" in name or "HF peft 1" in name for name in lines) == 4
    assert sum(name.endswith("over HF peft's") for name in lines) == 4
    assert f"other_encoder:make of {tmp_path}" in lines


def test_startup_has_imports_inject_and_extract_task(run) -> None:
    whole = run("startup.py", *TINY, "--methods", "adapter", "--tasks", "1", "2")
    imports, lines = whole["found"].values()
    assert set(imports) == {"import timm", "import peft_dense"}
    assert set(lines) == {
        f"{what}, adapter, T = {count}" for what in ("inject", "extract_task") for count in (1, 2)
    }


NET = '{"embed_dim": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}'
TRAINED = (
    *("--cpu", "--image-size", "32", "32", "--batch", "2", "--head-width", "8", "--rounds", "1"),
    *("--backbone", "swin_tiny_patch4_window7_224", "--backbone-args", NET, "--threads", "1"),
)


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a script; give what it printed."""
    monkeypatch.setattr("sys.path", list(sys.path))
    threads = torch.get_num_threads()

    def call(script: str, *words: str) -> str:
        runpy.run_path(str(FOLDER / script))["main"](words)
        return capsys.readouterr().out

    yield call
    torch.set_num_threads(threads)


def first_cells(table: str) -> list[str]:
    rows = [line for line in table.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def test_step_has_a_ratio_per_option(printed) -> None:
    table = printed("step.py", *TRAINED, "--tasks", "sal,normals")
    names = first_cells(table)
    assert names[0] == "plain step" and names[-1] == "plain torch" and "bf16" in names
    assert "| plain step | 1.00 | 1.00 to 1.00 |" in table
    assert "2 images of 32 x 32, vmt_lite; CPU" in table


@pytest.mark.full  # a process per method
def test_training_cost_has_a_ratio_per_method(printed) -> None:
    words = ("--tasks", "sal", "--repeats", "1", "--method", "lora,decoders_only")
    table = printed("training_cost.py", *TRAINED, *words)
    assert first_cells(table) == ["decoders_only", "lora"]
    assert "| decoders_only | 1.00 |" in table and "of 2 images; CPU" in table


@pytest.mark.full  # a process per pipeline
def test_loader_has_a_rate_per_pipeline(printed) -> None:
    former = str(FOLDER.parent / "src")
    words = ("--images", "2", "--size", "64", "--turns", "1", "--former", former)
    lines = printed("loader.py", *words).splitlines()
    names = ("fused", "floats", "three moves", "torchvision", "former")
    assert all(line.startswith(name) for line, name in zip(lines, names, strict=True))
    assert lines[0].endswith("   1.00 x")
