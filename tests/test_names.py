"""A name means one thing: no function hides a module, and what is exported is there."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import peft_dense

MODULES = [m.name for m in pkgutil.walk_packages(peft_dense.__path__, "peft_dense.")]

# What users may rely on. A name that comes or goes is a change for CHANGELOG.md.
PUBLIC = {
    "backbones": """
        BackboneInfo Family Form LinearSite MapScope Operation Recording Site StageTap Tap
        WholeImage add_after add_beside branch_at branch_name comes_first describe examine
        family_of fold freeze own probe register_family replace replace_branch share
        take_off template transform_output
    """,
    "backbones.families": """
        Family family_of register_family
    """,
    "conflict": """
        Conflict ConflictRecorder conflict shared_layers
    """,
    "data": """
        Cached ColorJitter Compose DenseFolder DescribedFolder DescribedItems Description
        Draft FILE Finding NYUDv2 PASCALContext Pack PadTo Place RandomCrop RandomFlip
        RandomRotation RandomScaleCrop RandomWarp Resize Scenes augmentation available_tasks
        blank_item check_data collate describe find_place inspect_labels layout_of
        make_archive on_device open_data parse_tasks read_description ready_descriptions
        register_reader tasks_of
    """,
    "data.transforms": """
        ColorJitter Compose Pack PadTo RandomCrop RandomFlip RandomRotation RandomScaleCrop
        RandomWarp Resize Unpack augmentation flip jointly resize rotate
    """,
    "errors": """
        CheckpointError DataError HyperparameterError ImageSizeError LabelSizeError
        MissingFileError MissingPackageError NoSiteError PeftDenseError ShapeError
        UnknownNameError UnsupportedModelError warn
    """,
    "heads": """
        HRNetHead Head SegFormerHead head heads register
    """,
    "methods": """
        Method method methods register
    """,
    "nn": """
        Bottleneck ConvpassAdapter DecomposedHyperNetwork DoRALinear FanInLinear
        GeneratedBottleneck HyperNetwork KroneckerLinear KroneckerRule
        LayerwiseScalingKernel LowRank LowRankLinear MonaAdapter Prompts ScaleShift TaskDict
        TaskEmbedding VMTAdapter VectorScalingKernel apply_bottleneck kronecker_apply
        kronecker_sum
    """,
    "predicting": """
        Prediction normalise predict prepare raw_maps to_size undisturbed
    """,
    "tasks": """
        BoundaryMeter IGNORE Meter Scores Task delta_m published references register task
        tasks
    """,
    "tasks.boundaries": """
        BoundaryMeter PixelMatcher boundary_counts non_maximum_suppression thin
    """,
    "training": """
        Checkpoints Recipe Setup Stopped TrainedRun Trainer add_options evaluate load_run
        make_backbone make_data make_model picture predict quality read_options run_all
        table
    """,
}


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__")])
def test_no_name_hides_a_module(name):
    """``import a.b as m`` gives the attribute ``b`` of ``a``, so that must be the module."""
    module = importlib.import_module(name)
    parent, _, leaf = name.rpartition(".")
    assert isinstance(getattr(importlib.import_module(parent), leaf), ModuleType)
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), exported


def test_methods_is_a_module_and_a_function():
    import peft_dense.methods as package
    from peft_dense import methods

    assert methods is package
    assert "vmt_lite" in methods() == sorted(methods())
    assert package.register.__module__ == "peft_dense.methods.base"


def test_the_shop_window():
    assert set(peft_dense.__all__) == {
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
    }
    assert all(hasattr(peft_dense, name) for name in peft_dense.__all__)


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_those_of_the_list(package):
    module = importlib.import_module(f"peft_dense.{package}")
    assert sorted(module.__all__) == PUBLIC[package].split()


def test_every_package_with_public_names_is_in_the_list():
    """A package that exports names is public; those without ``__all__`` are ours to change."""
    exporting = {
        name.removeprefix("peft_dense.")
        for name in MODULES
        if hasattr(module := importlib.import_module(name), "__path__")
        and module.__dict__.get("__all__")
    }
    assert exporting - {"cli"} == PUBLIC.keys() - {"errors"}
