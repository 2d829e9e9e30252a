"""Comparison of tensors by name, type and shape, and messages of what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from peft_dense.errors import CheckpointError, warn
from peft_dense.keeping.tensors import Spec

__all__ = ["changed_weights", "check_backbone", "check_state", "specs", "warn_unless_finite"]


def specs(state: Mapping[str, Tensor]) -> dict[str, Spec]:
    """Take type and shape of each tensor.

    Raises:
        CheckpointError: One is no tensor.

    Example:
        >>> specs({"scale": torch.ones(2, 3)})
        {'scale': Spec(dtype=torch.float32, shape=(2, 3))}
    """
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(
                f"{name!r:.100} is a {type(tensor).__name__}; expected a tensor. Pass what the "
                "model's state dict gave."
            )
    return {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in state.items()}


def check_state(
    expected: Mapping[str, Spec], given: Mapping[str, Spec], what: str, remedy: str
) -> None:
    """Check names, shapes and types of tensors; floats of another precision will do.

    Args:
        expected: The model's.
        given: Those to be loaded.
        what: Beginning of the message.
        remedy: Its end: what to do.

    Raises:
        CheckpointError: Names, shapes or kinds of type differ; three of each are named.
    """
    problems = _differences(expected, given, ("missing", "unknown", "misshapen"))
    if problems:
        raise CheckpointError(f"{what}: {'; '.join(problems)}. {remedy}")


def check_backbone(
    saved: Mapping[str, Sequence[int]],
    here: Mapping[str, Sequence[int]],
    saved_class: str,
    here_class: str,
) -> None:
    """Compare the parameters that adapters were made for with those that are there.

    Raises:
        CheckpointError: Names or shapes differ; three of each are named.
    """
    wanted, found = (
        {name: Spec(torch.float32, tuple(shape)) for name, shape in shapes.items()}
        for shapes in (saved, here)
    )
    words = ("parameters it lacks", "it has besides", "of another shape")
    problems = _differences(wanted, found, words)
    if problems:
        raise CheckpointError(
            f"the adapters belong to a {saved_class} and don't fit this {here_class}: "
            f"{'; '.join(problems)}. Build the backbone as it was when they were trained."
        )


def warn_unless_finite(state: Mapping[str, Tensor]) -> None:
    """Warn of tensors that hold NaN or infinity, as after a training that diverged."""
    broken = [
        name
        for name, tensor in state.items()
        if (tensor.is_floating_point() or tensor.is_complex())
        and not tensor.is_meta
        and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        warn(
            f"{_some('tensors hold NaN or infinity', broken)}: what was saved had diverged, or "
            "doesn't fit into the backbone's type. Load an earlier save, or cast the backbone to "
            "the type it was trained in."
        )


def changed_weights(model: str) -> str:
    """Give the message for frozen weights that changed since inject."""
    return (
        f"the frozen weights of {model} have changed since inject, so adapters saved now would not "
        "fit the weights they are loaded on. Train what adapter_parameters() yields, not the whole "
        "model; load pretrained weights before inject; and to go on from the changed ones, save "
        "the backbone's state dict as well, load it and inject again."
    )


def _differences(
    expected: Mapping[str, Spec], given: Mapping[str, Spec], words: tuple[str, str, str]
) -> list[str]:
    """Phrase what is missing, what is unknown, what has another shape and another type."""
    common = sorted(expected.keys() & given.keys())
    shapes = [
        f"{name} is {_shape(given[name])}, expected {_shape(expected[name])}"
        for name in common
        if given[name].shape != expected[name].shape
    ]
    types = [
        f"{name} is {_type(given[name])}, expected {_type(expected[name])}"
        for name in common
        if _kind(given[name].dtype) != _kind(expected[name].dtype)
    ]
    found = (
        (words[0], sorted(expected.keys() - given.keys())),
        (words[1], sorted(given.keys() - expected.keys())),
        (words[2], shapes),
        ("of another type", types),
    )
    return [_some(what, names) for what, names in found if names]


def _some(what: str, names: Sequence[str]) -> str:
    """Count what there is, and show the first three."""
    shown = ", ".join(name if len(name) <= 200 else f"{name[:200]}..." for name in names[:3])
    return f"{len(names)} {what} ({shown}{', ...' if len(names) > 3 else ''})"


def _kind(dtype: torch.dtype) -> object:
    """Types that convert into one another have one kind: floats, and complex numbers."""
    if dtype.is_floating_point:
        return "float"
    return "complex" if dtype.is_complex else dtype


def _shape(spec: Spec) -> str:
    return str(spec.shape) if len(spec.shape) <= 8 else f"of {len(spec.shape)} axes"


def _type(spec: Spec) -> str:
    return str(spec.dtype).removeprefix("torch.")
