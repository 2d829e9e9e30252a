"""What a method is: which tasks share a path, what goes on each path, and how many parameters.

A method is a frozen dataclass of hyper-parameters, registered by name. It answers two questions.
*Which tasks share a path?* ``one_path``: one for all tasks (one pass), or one for each (a pass a
task). *What goes on each path?* :meth:`Method.adapt` edits a path in place; what several paths
share (a hypernetwork, a Kronecker rule) is made once by :meth:`Method.shared`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from peft_dense.backbones import (
    BackboneInfo,
    Site,
    adapter_at,
    add_after,
    add_beside,
    set_adapter,
)
from peft_dense.errors import HyperparameterError, UnknownNameError, UnsupportedModelError

__all__ = [
    "Method",
    "attach",
    "bake_adapters",
    "check_adapter",
    "method",
    "methods",
    "one_of",
    "register",
    "width_of",
]

_REGISTRY: dict[str, type[Method]] = {}
M = TypeVar("M", bound="type[Method]")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of every method; a subclass adds hyper-parameters as keyword-only fields."""

    name: ClassVar[str]
    """Registered name."""
    paper: ClassVar[str]
    """Where the method comes from, with section or equation."""
    one_path: ClassVar[bool]
    """Whether all tasks share one path, and so one pass."""

    def __post_init__(self) -> None:
        """Check every number's kind; a subclass adds what else needs no backbone to be checked."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (
                isinstance(value, bool) or not isinstance(value, Integral) or value < 1
            ):
                raise HyperparameterError(
                    f"{field.name}={value!r}; expected a whole number from 1 up."
                )
            if field.type == "float" and (
                isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value)
            ):
                raise HyperparameterError(f"{field.name}={value!r}; expected a finite number.")
            if field.type == "bool" and not isinstance(value, bool):
                raise HyperparameterError(f"{field.name}={value!r}; expected True or False.")

    def resolve(self, info: BackboneInfo) -> Method:
        """Return the method with what depends on a backbone's widths settled.

        Raises:
            HyperparameterError: A hyper-parameter doesn't fit the backbone's widths.
            NoSiteError: The backbone has no place for what the method adds.
        """
        return self

    def shared(self, info: BackboneInfo, tasks: Sequence[str]) -> nn.Module | None:
        """Make what all paths refer to; it is owned once, by the root."""
        return None

    def adapt(
        self,
        path: nn.Module,
        info: BackboneInfo,
        tasks: Sequence[str],
        shared: nn.Module | None,
    ) -> None:
        """Edit one path in place.

        Args:
            path: A clone of the backbone that shares every frozen tensor.
            info: What the probe found.
            tasks: The tasks this path serves: all, or one.
            shared: What :meth:`shared` made.
        """
        raise NotImplementedError

    def task_features(
        self,
        path: nn.Module,
        info: BackboneInfo,
        outputs: list[Tensor],
        tasks: Sequence[str],
        image: Tensor,
    ) -> dict[str, list[Tensor]]:
        """Form each task's stage features from a path's stage outputs (finest first)."""
        return dict.fromkeys(tasks, outputs)

    def merge(self, path: nn.Module, info: BackboneInfo) -> None:
        """Fold what the method added to a path into plain modules, in place.

        Raises:
            UnsupportedModelError: It can't be folded; the message says why.
        """
        raise UnsupportedModelError(
            f"{self.name} can't be merged: what it adds isn't linear in the backbone's weights."
        )

    def count(self, info: BackboneInfo, tasks: int) -> int:
        """Closed formula for the encoder's trainable parameters with ``tasks`` tasks."""
        raise NotImplementedError

    def passes(self, tasks: int) -> int:
        """Passes through the backbone per forward."""
        return 1 if self.one_path else tasks


def register(cls: M) -> M:
    """Make a method known under its ``name``."""
    _REGISTRY[cls.name] = cls
    return cls


def methods() -> list[str]:
    """List the names of all registered methods.

    Example:
        >>> "vmt_lite" in methods()
        True
    """
    return sorted(_REGISTRY)


def method(name: str | Method, **hyperparameters: Any) -> Method:
    """Make a method from its name, or change hyper-parameters of a given one.

    Raises:
        UnknownNameError: No such method, or no such hyper-parameter; the nearest are offered.

    Example:
        >>> method("vmt_lite", ratio=8).ratio
        8
    """
    if isinstance(name, Method):
        cls: type[Method] = type(name)
    elif isinstance(name, str) and name in _REGISTRY:
        cls = _REGISTRY[name]
    else:
        raise UnknownNameError.of("method", name, _REGISTRY)
    known = {field.name for field in dataclasses.fields(cls)}
    for given in hyperparameters:
        if given not in known:
            raise UnknownNameError.of(f"hyper-parameter of {cls.name}", given, known)
    if isinstance(name, Method):
        return dataclasses.replace(name, **hyperparameters)
    return cls(**hyperparameters)


def width_of(site: Site, ratio: int) -> int:
    """Return the adapter's bottleneck width at a site: its width over ``ratio``.

    Raises:
        HyperparameterError: The ratio isn't a whole number that divides the width.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1 or site.width % ratio:
        allowed = [r for r in range(1, site.width + 1) if site.width % r == 0]
        raise HyperparameterError(
            f"ratio={ratio!r} doesn't divide the width {site.width} of {site.name!r}; "
            f"it allows {', '.join(map(str, allowed))}."
        )
    return site.width // ratio


def one_of(name: str, given: object, allowed: Sequence[object]) -> None:
    """Check that a hyper-parameter is one of the allowed values.

    Raises:
        HyperparameterError: It isn't.
    """
    if not any(given is value or given == value for value in allowed):
        raise HyperparameterError(
            f"{name}={given!r} is unknown; choose one of {', '.join(map(repr, allowed))}."
        )


def check_adapter(norm: object, sites: object, placement: object) -> None:
    """Check what adapters have in common and needs no backbone to be checked."""
    one_of("norm", norm, ("in", "out", None))
    one_of("sites", sites, ("mlp", "attn", "both"))
    one_of("placement", placement, ("parallel", "serial"))


def attach(path: nn.Module, site: Site, branch: nn.Module, placement: str = "parallel") -> None:
    """Put an adapter beside a site (``"parallel"``) or after it (``"serial"``).

    Raises:
        HyperparameterError: The site changes the width or the tokens, so its input has no place in
            its output.
    """
    if placement == "parallel" and not site.keeps_shape:
        raise HyperparameterError(
            f"placement='parallel' can't go at {site.name!r}, which changes the width or the "
            "number of tokens; use placement='serial'."
        )
    (add_beside if placement == "parallel" else add_after)(path, site, branch)


def bake_adapters(path: nn.Module, sites: Sequence[Site], bake: Callable[[Any], nn.Module]) -> None:
    """Put ``bake(adapter)`` in the place of the adapter at each site."""
    for site in sites:
        set_adapter(path, site, bake(adapter_at(path, site)))
