"""Counts of trainable parameters: the papers' cells on Swin-Tiny, closed formulas on any Swin."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.swin_transformer import SwinTransformer, swin_tiny_patch4_window7_224
from torch import nn

from peft_dense import AdaptedBackbone, DenseModel, methods
from peft_dense.backbones import examine
from peft_dense.errors import HyperparameterError
from peft_dense.injection import PASCAL_CONTEXT
from peft_dense.methods import method as make_method

OUTPUTS = {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3}
HEADS_AND_NORMS = 2_549_024  # four SegFormer heads of width 256, one set of output norms a task

# Encoder's parameters, and the papers' "encoder / all" columns in millions. None where a printed
# cell follows another definition: norms of the outputs shared by the tasks (Multi-task full and
# the Shared rows' "all"), cells that differ in the last digit (Multi-task full, Compacter++), cells
# no definition meets (Shared LoRA, Shared low-rank adapter), or no cell at all.
GOLDEN: dict[str, tuple[int, str | None, str | None]] = {
    # Polyhistor, table 1
    "single_task_full": (110_071_272, "110.07", "112.62"),
    "decoders_only": (0, "0.00", "2.55"),
    "multitask_full": (27_517_818, None, None),
    "bitfit": (299_112, "0.30", "2.85"),
    "relative_bias": (93_288, "0.09", "2.64"),
    "vpt_shallow": (19_200, "0.02", "2.57"),
    "vpt_deep": (883_200, "0.88", "3.43"),
    "phm": (594_592, "0.59", "3.14"),
    "compacter": (229_888, "0.23", "2.78"),
    "compacter_pp": (115_072, None, "2.66"),
    "lora": (282_624, None, None),
    "lora[norm=True]": (317_952, "0.32", "2.87"),
    "adapter": (8_688_000, "8.69", "11.24"),
    "low_rank_adapter": (339_696, "0.34", "2.89"),
    "shared_adapter[unfreeze_norms=True]": (2_195_232, "2.20", "4.74"),
    "hyperformer": (72_772_304, "72.77", "75.32"),
    "hyperformer[ratio=32]": (20_152_724, "20.15", None),  # figure 3b
    "polyhistor": (6_410_684, "6.41", "8.96"),
    # Polyhistor, table 2
    "polyhistor_lite[k=64]": (414_976, "0.41", "2.96"),
    "polyhistor_lite[k=32]": (289_440, "0.29", "2.84"),
    "polyhistor_lite[k=16]": (226_672, "0.23", "2.78"),
    # VMT-Adapter, table 2
    "shared_bitfit": (74_778, None, None),
    "shared_relative_bias": (23_322, None, None),
    "shared_adapter": (2_172_000, "2.17", None),
    "shared_lora": (70_656, None, None),
    "shared_lora[norm=True]": (79_488, None, None),
    "shared_low_rank_adapter": (84_924, None, None),
    # VMT-Adapter, tables 2 and 3
    "vmt[ratio=1]": (4_361_664, "4.36", "6.91"),
    "vmt[ratio=2]": (2_205_120, "2.21", None),  # 4.56 is printed where the rest implies 4.75
    "vmt[ratio=4]": (1_126_848, "1.13", "3.68"),
    "vmt[ratio=8]": (587_712, "0.59", "3.14"),
    "vmt_lite[m=3]": (399_492, "0.40", "2.95"),
    "vmt_lite[m=6]": (222_048, "0.22", "2.77"),
    "vmt_lite[m=12]": (150_336, "0.15", "2.70"),
}
# What a bare name means: the papers' variant is the default.
DEFAULTS = {
    "vmt": "vmt[ratio=4]",
    "vmt_lite": "vmt_lite[m=3]",
    "polyhistor_lite": "polyhistor_lite[k=64]",
}
every_row = pytest.mark.parametrize("row", GOLDEN)


@functools.cache
def swin_tiny() -> nn.Module:
    return swin_tiny_patch4_window7_224()


@functools.cache
def swin_tiny_info():
    return examine(swin_tiny())


def parse(row: str) -> tuple[str, dict[str, int]]:
    """Split ``"vmt_lite[m=6]"`` into the name and its hyper-parameters."""
    name, _, options = row.rstrip("]").partition("[")
    pairs = (option.split("=") for option in options.split(",") if option)
    return name, {key: True if value == "True" else int(value) for key, value in pairs}


PAPERS = sorted({parse(row)[0] for row in GOLDEN})


def millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def test_the_papers_methods_are_registered():
    assert set(methods()) >= set(PAPERS)


@every_row
def test_the_closed_formula_gives_the_papers_count(row):
    name, options = parse(row)
    expected, encoder, everything = GOLDEN[row]
    count = make_method(name, **options).resolve(swin_tiny_info()).count(swin_tiny_info(), 4)
    assert count == expected
    assert encoder in (None, millions(count))
    assert everything in (None, millions(count + HEADS_AND_NORMS))


@every_row
def test_the_modules_hold_the_papers_count(row):
    name, options = parse(row)
    adapted = adapt(swin_tiny(), swin_tiny_info(), name, PASCAL_CONTEXT, **options)
    assert adapted.ledger().encoder == GOLDEN[row][0]
    assert adapted.ledger().backbone == 27_517_818


@pytest.mark.parametrize(("name", "row"), DEFAULTS.items())
def test_defaults_are_the_papers_variants(name, row):
    info = swin_tiny_info()
    assert make_method(name).resolve(info).count(info, 4) == GOLDEN[row][0]


def test_heads_and_output_norms_make_the_papers_total():
    encoder = adapt(swin_tiny(), swin_tiny_info(), "vmt_lite", PASCAL_CONTEXT)
    model = DenseModel(encoder, OUTPUTS)
    ledger = model.ledger()
    assert ledger.heads == HEADS_AND_NORMS
    assert ledger.total == ledger.encoder + HEADS_AND_NORMS == 2_948_516
    assert ledger.total == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert "2,948,516" in str(ledger)


# ---------------------------------------------------------------------- drawn backbones


def adapt(model, info, name: str, tasks, **options) -> AdaptedBackbone:
    """What inject does, without probing a backbone that is probed already."""
    return AdaptedBackbone(model, make_method(name, **options).resolve(info), tasks, info)


@functools.cache
def tiny(width: int, depths: tuple[int, ...], size: int, window: int):
    model = SwinTransformer(
        img_size=size,
        window_size=window,
        embed_dim=width,
        depths=depths,
        num_heads=(1, 2, 4, 8)[: len(depths)],
        num_classes=3,
    )
    return model, examine(model)


def backbones() -> st.SearchStrategy:
    return st.builds(
        tiny,
        st.sampled_from([8, 12, 16]),
        st.sampled_from([(1, 1), (2, 1), (1, 1, 2), (1, 2, 1, 1)]),
        st.just(32),
        st.sampled_from([2, 4]),
    )


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


@st.composite
def set_ups(draw) -> tuple[nn.Module, object, str, dict[str, object]]:
    """Draw a Swin, a method, and hyper-parameters that fit the Swin's widths."""
    model, info = draw(backbones())
    width = info.channels[0]
    name = draw(st.sampled_from(PAPERS))
    known = make_method(name).__dataclass_fields__
    options: dict[str, object] = {}

    def choose(key: str, values) -> None:
        if key in known and draw(st.booleans()):
            options[key] = draw(st.sampled_from(list(values)))

    if "ratio" in known:
        options["ratio"] = draw(st.sampled_from(divisors(width)))
        waist = width // options["ratio"]
        if "m" in known:
            options["m"] = draw(st.sampled_from(divisors(waist)))
        if "n" in known:
            options["n"] = draw(st.sampled_from(divisors(waist)))
        if name != "hyperformer":
            choose("rank", range(1, waist + 1))
    else:
        choose("rank", range(1, width + 1))
    choose("k", (1, 8, 16))
    choose("norm", (True, False) if "lora" in name else ("in", None))
    choose("unfreeze_norms", (True, False))
    choose("collect", ("sum", "last"))
    choose("sites", ("mlp", "attn", "both"))
    choose("targets", (("qkv",), ("proj", "fc1"), ("qkv", "proj", "fc1", "fc2")))
    if name == "polyhistor":
        choose("joint", (True, False))
    return model, info, name, options


@settings(max_examples=12)
@given(set_ups(), st.integers(1, 4))
def test_the_closed_formula_counts_what_is_there(set_up, number):
    model, info, name, options = set_up
    tasks = [f"task {i}" for i in range(number + 1)]
    fewer, more = (adapt(model, info, name, tasks[:t], **options) for t in (number, number + 1))
    how = more.method
    for adapted, t in ((fewer, number), (more, number + 1)):
        ledger = adapted.ledger()
        trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
        assert trained == ledger.encoder == how.count(info, t)
        assert sum(p.numel() for _, p in adapted.adapter_parameters()) == trained
        assert ledger.passes == how.passes(t) == len(adapted.paths)
        assert set(ledger.tasks) == set(tasks[:t])
    # A task more costs what the formula says, and all of it serves the new task alone.
    growth = more.ledger().encoder - fewer.ledger().encoder
    assert growth == how.count(info, number + 1) - how.count(info, number)
    assert growth == more.ledger().tasks[tasks[-1]]
    fewer.add_task(tasks[number])
    assert fewer.ledger() == more.ledger()


@settings(max_examples=10)
@given(
    backbones(), st.integers(2, 20), st.sampled_from(["vmt", "vmt_lite", "adapter", "polyhistor"])
)
def test_a_ratio_fits_where_it_divides_every_width(backbone, ratio, name):
    model, info = backbone
    if info.channels[0] % ratio == 0:
        assert adapt(model, info, name, ["a"], ratio=ratio).ledger().encoder > 0
    else:
        with pytest.raises(HyperparameterError, match=f"ratio is {ratio}, but must divide"):
            adapt(model, info, name, ["a"], ratio=ratio)


@settings(max_examples=10)
@given(backbones(), st.sampled_from([1, 2]), st.integers(1, 10))
def test_m_fits_where_it_divides_every_waist(backbone, ratio, m):
    model, info = backbone
    if (info.channels[0] // ratio) % m == 0:
        assert adapt(model, info, "vmt_lite", ["a"], ratio=ratio, m=m).method.m == m
    else:
        with pytest.raises(HyperparameterError, match=f"m={m} .*they allow 1"):
            adapt(model, info, "vmt_lite", ["a"], ratio=ratio, m=m)


@given(backbones())
def test_the_default_m_is_as_near_to_three_as_the_widths_allow(backbone):
    _, info = backbone
    waist = math.gcd(*info.channels) // 4
    chosen = make_method("vmt_lite").resolve(info).m
    assert waist % chosen == 0
    assert all(abs(chosen - 3) <= abs(m - 3) for m in divisors(waist))


def test_a_ledger_counts_by_what_it_serves():
    model, info = tiny(8, (1, 1), 32, 4)
    ledger = adapt(model, info, "vmt", ["a", "b", "c"], ratio=2).ledger()
    d = torch.tensor(info.channels)
    assert ledger.per_task == int((2 * d).sum()) * 3
    assert ledger.shared == int((d * d + 3 * d).sum())
    assert ledger.unfrozen_backbone == 0
    owned = adapt(model, info, "single_task_full", ["a", "b"]).ledger()
    assert owned.unfrozen_backbone == owned.encoder == 2 * owned.backbone
    assert owned.percent == pytest.approx(200)
