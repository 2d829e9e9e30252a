"""The command line: what it counts, what it prints, and how it fails."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest

import zoo
from peft_dense import inject, papers
from peft_dense.adapted import AdaptedBackbone
from peft_dense.backbones import describe, examine
from peft_dense.cli import main
from peft_dense.counting import Counter, build
from peft_dense.errors import PeftDenseError
from peft_dense.methods import method, methods

SWIN = "timm.models.swin_transformer:SwinTransformer"
SMALL = json.dumps(
    {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2]}
)
TASKS = ("semseg", "depth")


def run(capsys, *argv: str) -> str:
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert not captured.err
    return captured.out


def fails(capsys, *argv: str) -> str:
    """The error that the command ends with: one line, and status 2."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert not captured.out
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    return line


def refused(capsys, *argv: str) -> str:
    """What argparse says of arguments it can't read."""
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


def params(*argv: str) -> tuple[str, ...]:
    return ("params", SWIN, "--backbone-args", SMALL, "--tasks", ",".join(TASKS), *argv)


@functools.cache
def counted() -> dict[str, object]:
    """What ``params --method all --json`` prints on a small Swin."""
    out = subprocess.run(
        [sys.executable, "-m", "peft_dense", *params("--json")],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.stdout)


# ---------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    "model",
    [
        lambda: build(SWIN, {**json.loads(SMALL), "embed_dim": 64}),
        lambda: zoo.build("convnext_nchw"),  # without attention
    ],
    ids=["swin", "convnext"],
)
def test_counts_without_values_are_those_of_what_is_built(model):
    model = model()
    info = examine(model)
    counter = Counter(model, dict.fromkeys(TASKS, 2), width=8)
    for name in methods():
        try:
            how = method(name).resolve(info)
            built = AdaptedBackbone(model, how, TASKS, info).ledger()
        except PeftDenseError as error:
            with pytest.raises(type(error)):
                counter.count(name)
            continue
        count = counter.count(name)
        for key in ("shared", "per_task", "unfrozen_backbone", "encoder", "percent", "passes"):
            assert count[key] == getattr(built, key), (name, key)
        assert count["next_task"] == how.count(info, 3) - how.count(info, 2)
        assert count["all"] == count["encoder"] + count["heads"]


def test_every_method_is_counted():
    assert [count["method"] for count in counted()["methods"]] == methods()
    assert counted()["channels"] == {"semseg": 21, "depth": 1}


def test_a_count_says_with_which_hyperparameters():
    (lite,) = (count for count in counted()["methods"] if count["method"] == "vmt_lite")
    assert lite["hyperparameters"]["ratio"] == 4
    assert lite["hyperparameters"]["m"] == 4  # settled for widths that 3 doesn't divide


# ---------------------------------------------------------------------- tables


def row_of(table: str, name: str) -> list[str]:
    (row,) = (line.split() for line in table.splitlines() if line.split()[:1] == [name])
    return row[1:]


def test_the_table_holds_what_json_holds(capsys):
    table = run(capsys, *params("--method", "vmt,lora"))
    counts = {count["method"]: count for count in counted()["methods"]}
    for name in ("vmt", "lora"):
        count = counts[name]
        keys = ("shared", "per_task", "unfrozen_backbone", "encoder", "heads", "all")
        assert row_of(table, name) == [
            *(f"{count[key]:,}" for key in keys),
            f"{count['percent']:.3f}",
            str(count["passes"]),
            f"{count['next_task']:,}",
        ]


def test_a_method_that_cannot_go_there_says_so_in_its_row(capsys):
    table = run(capsys, "params", "pvt_v2_b0", "--method", "relative_bias,bitfit")
    reason = next(line for line in table.splitlines() if line.startswith("relative_bias "))
    assert "has no relative-position parameters" in reason
    assert row_of(table, "bitfit")[-2] == "4"


def test_settings_go_to_the_methods_that_have_them(capsys):
    argv = params("--method", "vmt,lora,bitfit", "--set", "ratio=2", "--set", "targets=proj,fc1")
    table = run(capsys, *argv)
    assert "ratio=2 holds for vmt." in table
    assert "targets=('proj', 'fc1') holds for lora." in table
    out = json.loads(run(capsys, *argv, "--json"))
    assert [count["hyperparameters"].get("ratio") for count in out["methods"]] == [2, None, None]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("norm=none", None), ("norm=in", "in"), ("scale=0.5", 0.5), ("ratio=4", 4)],
)
def test_settings_are_read_as_python(capsys, setting, value):
    out = json.loads(run(capsys, *params("--method", "adapter", "--set", setting, "--json")))
    assert out["methods"][0]["hyperparameters"][setting.partition("=")[0]] == value


def test_heads_follow_channels_and_width(capsys):
    def heads(*argv: str) -> int:
        out = json.loads(run(capsys, *params("--method", "decoders_only", "--json", *argv)))
        return out["methods"][0]["heads"]

    assert heads("--channels", "depth=3") - heads() == 2 * (256 + 1)
    assert heads("--head-width", "32") < heads()


def test_a_class_in_the_users_folder_is_found(capsys, tmp_path, monkeypatch):
    (tmp_path / "my_backbone.py").write_text(
        "import timm\ndef small():\n    return timm.create_model('pvt_v2_b0')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert "bitfit" in run(capsys, "params", "my_backbone:small", "--method", "bitfit")


def test_a_flat_backbone_is_noted(capsys):
    size = json.dumps({"img_size": 32, "depth": 4})
    assert (
        main(["params", "vit_tiny_patch16_224", "--backbone-args", size, "--method", "lora"]) == 0
    )
    assert capsys.readouterr().err.startswith("note: VisionTransformer is flat")


def test_methods_are_listed_one_a_line(capsys):
    head, *lines = run(capsys, "methods").splitlines()
    assert head.split()[:3] == ["method", "passes", "paper"]
    assert [line.split()[0] for line in lines] == methods()
    for line in lines:
        how = method(line.split()[0])
        assert line.split()[1] == ("1" if how.one_path else "T")
        assert how.paper in line


# ---------------------------------------------------------------------- explain


def explain(*argv: str) -> tuple[str, ...]:
    return ("explain", SWIN, "--backbone-args", SMALL, *argv)


@pytest.mark.parametrize("name", ["lora", "vmt_lite", "polyhistor_lite"])
def test_explain_prints_what_inject_explains(capsys, name):
    out = run(capsys, *explain("--method", name, "--tasks", "semseg,depth"))
    inject(build(SWIN, json.loads(SMALL)), name, tasks=TASKS, explain=True)
    assert out.split() == capsys.readouterr().out.split()
    assert f"{name} puts on each of" in out and "trainable parameters" in out


def test_explain_without_a_method_tells_of_the_backbone(capsys):
    out = run(capsys, *explain())
    assert out.strip() == describe(examine(build(SWIN, json.loads(SMALL)))).strip()
    assert "layers.1.blocks.0.mlp" in out


def test_explain_follows_hyperparameters_and_tasks(capsys):
    out = run(capsys, *explain("--method", "lora", "--set", "rank=2", "--tasks", "a"))
    assert "lora puts on each of 1 path:" in out
    assert f"{2 * (16 + 48):,}" in out  # rank (in + out) of the first stage's qkv


def test_explain_tells_of_the_backbone_before_a_method_fails(capsys):
    assert main(explain("--method", "mona", "--set", "sites=attn")) == 2
    captured = capsys.readouterr()
    assert "layers.0.blocks.0.attn" in captured.out
    assert captured.err.startswith("error: mona convolves over maps")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (explain("--method", "vmt_light"), "did you mean 'vmt_lite'"),
        (explain("--method", "lora", "--set", "rnak=2"), "did you mean 'rank'"),
        (explain("--set", "rank=2"), "name one with --method"),
        (("explain", "swin_tiny"), "unknown model 'swin_tiny'"),
    ],
)
def test_explain_fails_in_one_line(capsys, argv, message):
    assert message in fails(capsys, *argv)


# ---------------------------------------------------------------------- papers

OFF = {
    "multitask_full": ("+0.01", "+0.01"),
    "compacter_pp": ("+0.01", "ok"),
    "shared_bitfit": ("-0.01", "-0.01"),
    "shared_relative_bias": ("-0.01", "-0.01"),
    "shared_lora norm=True": ("-0.05", "-0.05"),
    "shared_adapter": ("ok", "+0.01"),
    "shared_low_rank_adapter": ("-0.02", "+0.01"),
    "vmt ratio=2": ("ok", "+0.19"),
}
"""The rows that miss a printed cell; each has a note."""


def test_counts_beside_the_papers_cells(capsys):
    entries = json.loads(run(capsys, "params", "--papers", "--json"))
    for row, entry in zip(papers.ROWS, entries, strict=True):
        verdicts = (entry["encoder"]["verdict"], entry["all"]["verdict"])
        expected = OFF.get(row.label, ("ok", "ok" if row.total else ""))
        assert verdicts == expected, row.label
        assert row.note or row.label not in OFF
        assert set(entry["places"]) <= set(papers.PLACES.values())


def test_the_other_definitions_meet_the_cells():
    norms, tables, biases, qkv_and_proj = 2_880, 23_322, 74_778, 105_984
    adapters, heads = 2_172_000, 2_549_024
    fits = {
        "multitask_full": (27_517_818, 27_517_818 + heads - 3 * norms),
        "shared_bitfit": (biases + norms, biases + norms + heads),
        "shared_relative_bias": (tables + norms, tables + norms + heads),
        "shared_lora norm=True": (qkv_and_proj + tables, qkv_and_proj + tables + heads),
        "shared_adapter": (adapters, adapters + heads - 3 * norms),
    }
    assert {row.label: row.fits for row in papers.ROWS if row.fits} == fits
    for row in papers.ROWS:
        if row.fits:
            cut = row.method == "multitask_full"
            assert papers.verdict(row.fits[0], row.encoder) == ("+0.01" if cut else "ok")
            assert papers.verdict(row.fits[1], row.total) == "ok"


def test_every_method_of_the_papers_is_here():
    assert {row.method for row in papers.ROWS} <= set(methods())


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("params",), "no MODEL given"),
        (("params", "swin_tiny"), "unknown model 'swin_tiny'; did you mean 'swin"),
        (("params", "nowhere:Net"), "nowhere:Net with arguments {} can't be built: ModuleNotFound"),
        (("params", "hf-hub:timm/pvt_v2_b0"), "can't be built"),
        (
            ("params", "pvt_v2_b0", "--backbone-args", '{"pretrained": true}'),
            "can't be built: TypeError",
        ),
        (("params", "pvt_v2_b0", "--method", "vmt_light"), "did you mean 'vmt_lite'"),
        (params("--method", "vmt", "--set", "ratoi=2"), "'ratoi'; did you mean 'ratio'"),
        (params("--set", "ratoi=2"), "'ratoi'; did you mean 'ratio'"),
        (params("--method", "vmt", "--set", "ratio=5"), "ratio is 5, but must divide"),
        (params("--channels", "edge=1"), "unknown task with --channels 'edge'"),
        (("params", "pvt_v2_b0", "--tasks", "weather"), "--channels NAME=N"),
        (params("--head", "segfromer"), "did you mean 'segformer'"),
    ],
)
def test_an_error_is_one_line(capsys, argv, message):
    assert message in fails(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("params", "x", "--set", "ratio"), "expected name=value"),
        (("params", "x", "--channels", "semseg"), "each once, e.g. semseg=21"),
        (("params", "x", "--channels", "semseg=0"), "numbers from 1"),
        (("params", "x", "--channels", "semseg=2,semseg=3"), "each once"),
        (("params", "x", "--tasks", "a,a"), "each once"),
        (("params", "x", "--backbone-args", "[1]"), "expected JSON"),
        (("explain",), "MODEL"),
        ((), "COMMAND"),
    ],
)
def test_arguments_that_cannot_be_read(capsys, argv, message):
    assert message in refused(capsys, *argv)
