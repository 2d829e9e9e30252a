"""docs/troubleshooting.md has a section for every error, and the messages in it are real."""

from __future__ import annotations

import functools
import importlib
import inspect
import pickle
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from torch import nn

from peft_dense import AdaptedBackbone, DenseModel, errors, inject
from peft_dense.data import DenseFolder
from peft_dense.training import Recipe
from peft_dense.training.optimizer import make_optimizer

PAGE = (Path(__file__).parents[1] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MKDOCS = (Path(__file__).parents[1] / "mkdocs.yml").read_text(encoding="utf-8")
SITE = re.findall(r"^site_url: (\S+)$", MKDOCS, re.MULTILINE)[0]
SECTIONS = dict(re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
ERRORS = [
    name
    for name in errors.__all__
    if inspect.isclass(getattr(errors, name)) and issubclass(getattr(errors, name), Exception)
]


def shown(title: str) -> re.Pattern[str]:
    """The message of a section; ``...`` stands for anything, except inside a call of ours."""
    (message,) = re.findall(r"^```text\n(.*?)\n```$", SECTIONS[title], re.MULTILINE | re.DOTALL)
    pattern = re.escape(message).replace(r"=\.\.\.", "=[.]{3}").replace(r"'\.\.\.'", "'[.]{3}'")
    return re.compile(pattern.replace(r"\.\.\.", ".*"), re.DOTALL)


@functools.cache
def pvt() -> nn.Module:
    return timm.create_model("pvt_v2_b0")


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


def adapted() -> AdaptedBackbone:
    return inject(pvt(), "shared_bitfit", tasks=["semseg", "depth"])


def folder(root: Path, *, listed: bool = True, image: bool = True) -> DenseFolder:
    for name in ("images", "semseg"):
        (root / name).mkdir()
    if listed:
        (root / "train.txt").write_text("one\n")
    if image:
        Image.new("RGB", (8, 6)).save(root / "images" / "one.jpg")
    Image.new("L", (6, 8)).save(root / "semseg" / "one.png")
    return DenseFolder(root, "train", ["semseg"])


def without(package: str) -> None:
    """Import training as where a package isn't installed."""
    held = {n: m for n, m in sys.modules.items() if n.startswith(("peft_dense.training", package))}
    for name in held:
        del sys.modules[name]
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        importlib.import_module("peft_dense.training")
    finally:
        del sys.modules[package]
        sys.modules.update(held)


CAUSES: dict[str, Callable[[Path], object]] = {
    "UnknownNameError": lambda _: inject(pvt(), "vmt_light"),
    "HyperparameterError": lambda _: inject(pvt(), "vmt", ratio=5),
    "ShapeError": lambda _: adapted()(torch.zeros(3, 64, 64)),
    "ImageSizeError": lambda _: adapted()(torch.zeros(1, 3, 64, 60)),
    "UnsupportedModelError": lambda _: inject(adapted(), "vmt"),
    "NoSiteError": lambda _: inject(on_meta("resnet18"), "vmt"),
    "CheckpointError": lambda root: AdaptedBackbone.load(
        adapted().save(root), timm.create_model("pvt_v2_b1")
    ),
    "MissingPackageError": lambda _: without("accelerate"),
    "DataError": lambda root: folder(root, listed=False),
    "MissingFileError": lambda root: folder(root, image=False)[0],
    "LabelSizeError": lambda root: folder(root)[0],
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_has_a_section_that_says_what_it_is(name):
    kind = getattr(errors, name)
    assert name in SECTIONS, f"add '## {name}' to docs/troubleshooting.md"
    if kind is not errors.PeftDenseError:
        bases = [base.__name__ for base in kind.__bases__ if base is not errors.PeftDenseError]
        assert re.search(rf"\*An? `{bases[0]}`\.\*", SECTIONS[name])
        assert name in CAUSES


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_links_to_its_section(name):
    error = getattr(errors, name)("a message")
    page, anchor = error.help.split("#")
    assert page == f"{SITE}troubleshooting.html"
    assert anchor in {title.lower().replace(" ", "-") for title in SECTIONS}
    assert anchor == type(error).__name__.lower()  # its own section, not its base's
    assert str(error) == "a message"
    shown = "".join(traceback.format_exception(error))
    assert error.help in shown or sys.version_info < (3, 11)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.__notes__) == (str(error), error.__notes__)


@pytest.mark.parametrize("name", CAUSES)
def test_the_message_of_an_error_is_real(name, tmp_path):
    with pytest.raises(errors.PeftDenseError) as caught:
        CAUSES[name](tmp_path)
    assert type(caught.value).__name__ == name
    said = str(caught.value).replace(str(tmp_path), "FOLDER")
    assert shown(name).fullmatch(said), said


def diverged(root: Path) -> None:
    model = adapted()
    with torch.no_grad():
        next(p for _, p in model.adapter_parameters()).fill_(float("nan"))
    AdaptedBackbone.load(model.save(root), pvt())


def fast() -> None:
    model = DenseModel(inject(pvt(), "polyhistor", tasks=["sal"]), {"sal": 1}, width=8)
    make_optimizer(model, Recipe(lr=0.1))


WARNINGS: dict[str, Callable[[Path], object]] = {
    "A flat backbone": lambda _: inject(on_meta("vit_tiny_patch16_224"), "lora"),
    "Layers that serve the stream only": lambda _: inject(on_meta("nextvit_small"), "vmt_lite"),
    "Sites without a map": lambda _: inject(
        on_meta("swin_tiny_patch4_window7_224"), "convpass", sites="both"
    ),
    "A bottleneck of one unit": lambda _: inject(pvt(), "polyhistor", tasks=["sal"], ratio=32),
    "A rank above the bottleneck's width": lambda _: inject(
        pvt(), "polyhistor", tasks=["sal"], rank=4
    ),
    "A gate that leaves the tasks nothing": lambda _: inject(pvt(), "vmt", gate=1.0),
    "A rate too high for a hypernetwork": lambda _: fast(),
    "Other weights": lambda root: AdaptedBackbone.load(
        adapted().save(root), timm.create_model("pvt_v2_b0")
    ),
    "NaN": diverged,
}


@pytest.mark.parametrize("title", WARNINGS)
def test_the_message_of_a_warning_is_real(title, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WARNINGS[title](tmp_path)
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert any(shown(title).fullmatch(one) for one in said), said
    assert all(warning.filename == __file__ for warning in caught)


def test_every_warning_has_a_cause():
    after = PAGE.split("\n## Warnings\n")[1]
    assert re.findall(r"^### (.+)$", after, re.MULTILINE) == list(WARNINGS)
