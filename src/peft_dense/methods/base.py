"""The base of all methods, and their registry.

A method is a frozen dataclass of hyper-parameters, registered by name. It answers two questions.
*Which tasks share a path?* ``one_path``: one path for all tasks, or one per task; each path costs
one pass. *What goes on each path?* :meth:`Method.adapt` edits a path in place; what several paths
share (a hypernetwork, a Kronecker rule) is made once by :meth:`Method.shared`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from peft_dense.backbones import (
    BackboneInfo,
    Site,
    Tap,
    add_after,
    add_beside,
    branch_at,
    replace_branch,
)
from peft_dense.errors import (
    HyperparameterError,
    NoSiteError,
    UnknownNameError,
    UnsupportedModelError,
    warn,
)
from peft_dense.nn.checks import check_choice, check_divides, check_whole

__all__ = [
    "Method",
    "attach",
    "bake_adapters",
    "check_adapter",
    "check_maps",
    "map_sites",
    "method",
    "methods",
    "register",
    "warn_of_rank",
    "warn_of_waists",
    "width_of",
]

_REGISTRY: dict[str, type[Method]] = {}
M = TypeVar("M", bound="type[Method]")


@dataclass(frozen=True, kw_only=True)
class Method:
    """Base of every method; a subclass adds hyper-parameters as keyword-only fields.

    Shape:
        Stage features are ``(B, C_i, H_i, W_i)``, finest first.

    Raises:
        HyperparameterError: A number has another type than its field, isn't finite, or is a whole
            number below 1.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class TrainNorms(Method):
        ...     name, paper, one_path = "train_norms", "none", True
        ...
        ...     def adapt(self, path, info, tasks, shared):
        ...         own(path, info.norms)
        ...
        ...     def count(self, info, tasks):
        ...         return info.numel(info.norms)
        >>> import timm
        >>> from peft_dense import inject
        >>> from peft_dense.backbones import own
        >>> inject(timm.create_model("pvt_v2_b0"), TrainNorms(), tasks=["semseg"]).tasks
        ('semseg',)
    """

    name: ClassVar[str]
    """Registered name."""
    paper: ClassVar[str]
    """Where the method comes from, with section or equation."""
    one_path: ClassVar[bool]
    """Whether all tasks share one path, and so one pass."""

    def __post_init__(self) -> None:
        """Check the type and range of every number; subclasses add checks that need no backbone."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), _number(field.type)
            if value is None and _may_be_none(field.type):
                continue
            if kind is bool and not isinstance(value, bool):
                raise HyperparameterError(f"{field.name} is {value!r}; pass True or False.")
            if kind is int:
                check_whole(field.name, value)
                object.__setattr__(self, field.name, int(value))  # may be numpy's
            if kind is float:
                if isinstance(value, bool) or not isinstance(value, Real):
                    raise HyperparameterError(f"{field.name} is {value!r}; pass a number.")
                if not math.isfinite(value):
                    raise HyperparameterError(f"{field.name} is {value!r}; pass a finite number.")
                object.__setattr__(self, field.name, float(value))

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

    def taps(self, info: BackboneInfo) -> Sequence[Tap]:
        """Name the places on a path whose tensors :meth:`task_features` reads.

        VMT-Adapter reads the latent of every adapter. To read a block's input, return
        ``Tap(block, "input")``.
        """
        return ()

    def task_features(
        self,
        path: nn.Module,
        info: BackboneInfo,
        outputs: list[Tensor],
        taps: Mapping[Tap, Tensor],
        tasks: Sequence[str],
        image: Tensor,
    ) -> dict[str, list[Tensor]]:
        """Form the stage features of the tasks that were asked for.

        Args:
            path: The path that ran.
            info: What the probe found.
            outputs: Its stage outputs, finest first.
            taps: What passed at the places that :meth:`taps` names.
            tasks: The tasks to form features for.
            image: The images.
        """
        return {task: list(outputs) for task in tasks}

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
    """Register a method under its ``name``.

    Args:
        cls: The class, with ``name``, ``paper`` and ``one_path``.

    Example:
        >>> register(type(method("vmt_lite"))).name
        'vmt_lite'
    """
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

    Args:
        name: A registered name, or a method.
        hyperparameters: Values to set in place of the defaults, or of the given method's.

    Raises:
        UnknownNameError: No such method, or no such hyper-parameter; the nearest are offered.
        HyperparameterError: A value isn't allowed.

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


def _number(declared: Any) -> type | None:
    """Give bool, int or float where a field is declared as just that, or as that or None."""
    for kind in (bool, int, float):
        if declared in (kind, kind | None, kind.__name__, f"{kind.__name__} | None"):
            return kind
    return None


def _may_be_none(declared: Any) -> bool:
    return str(declared).endswith(" | None")


def width_of(site: Site, ratio: int) -> int:
    """Return the adapter's bottleneck width at a site: its width over ``ratio``.

    Raises:
        HyperparameterError: The ratio isn't a whole number that divides the width.
    """
    check_divides("ratio", ratio, **{site.name: site.width})
    return site.width // ratio


def warn_of_waists(method: Method, waists: Mapping[str, int], ratio: int) -> None:
    """Warn where a bottleneck is a single unit: where ReLU silences it, nothing trains.

    Args:
        method: Whose bottlenecks they are.
        waists: Width of the bottleneck by the site's name.
        ratio: The down-projection ratio, which is too large then.
    """
    single = [name for name, width in waists.items() if width == 1]
    if single and ratio > 1:
        warn(
            f"{method.name}: ratio={ratio} leaves a bottleneck of one unit at {len(single)} of "
            f"{len(waists)} sites: {_few(single)}. Where ReLU silences that unit, nothing of the "
            f"adapter trains. Take a smaller ratio, such as {max(1, ratio // 4)}."
        )


def warn_of_rank(method: Method, waists: Mapping[str, int], rank: int | None) -> None:
    """Warn where a generated matrix is narrower than the rank that was asked for.

    Args:
        method: Whose bottlenecks they are.
        waists: Width of the bottleneck by the site's name.
        rank: Rank of the pairs; None fits every width.
    """
    narrow = [name for name, width in waists.items() if rank is not None and rank > width]
    if narrow:
        widest = max(1, min(waists.values()))
        warn(
            f"{method.name}: rank={rank} is more than the bottleneck's width at {len(narrow)} of "
            f"{len(waists)} sites, the narrowest {widest}: {_few(narrow)}. A matrix generated "
            f"there has no higher rank. Take rank={widest} or less, or a smaller ratio."
        )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def check_adapter(norm: object, sites: object, placement: object) -> None:
    """Check the hyper-parameters that all adapters have."""
    check_choice("norm", norm, ("in", "out", None))
    check_choice("sites", sites, ("mlp", "attn", "both"))
    check_choice("placement", placement, ("parallel", "serial"))


def map_sites(info: BackboneInfo, kinds: str) -> tuple[Site, ...]:
    """Give the sites of a kind whose tokens lie on a map of known size."""
    return tuple(site for site in info.find(kinds) if site.scope is not None)


def check_maps(name: str, info: BackboneInfo, kinds: str) -> None:
    """Warn of the sites of a kind whose tokens lie on no map, in the name of a method.

    Raises:
        NoSiteError: None lies on a map.
    """
    sites, there = info.find(kinds), map_sites(info, kinds)
    lost = ", ".join(site.name for site in sites if site.scope is None)
    if not there:
        others = {site.kind for site in info.sites if site.scope is not None}
        remedy = f"choose sites={sorted(others)[0]!r}, or " if others else ""
        raise NoSiteError(
            f"{name} convolves over maps, but at none of the {len(sites)} {kinds!r} sites of "
            f"{info.model} do the tokens form a map in raster order (windows, mask units): {lost}. "
            f"Instead, {remedy}use shared_adapter or adaptformer, which need no map."
        )
    if lost:
        warn(
            f"{name} on {info.model}: at {len(sites) - len(there)} of {len(sites)} sites the "
            "tokens form no map in raster order (windows, mask units), so nothing is put there: "
            f"{lost}."
        )


def attach(
    path: nn.Module,
    site: Site,
    branch: nn.Module,
    placement: str,
    *,
    grid: bool = False,
) -> None:
    """Put an adapter beside a site (``"parallel"``) or after it (``"serial"``).

    With ``grid`` it is called as ``branch(x, (height, width))``.

    Raises:
        HyperparameterError: The site changes the width or the tokens, so its input has no place in
            its output.
    """
    if placement == "parallel" and not site.keeps_shape:
        raise HyperparameterError(
            f"placement='parallel' can't go at {site.name!r}, which changes the width or the "
            "number of tokens; use placement='serial'."
        )
    (add_beside if placement == "parallel" else add_after)(path, site, branch, grid=grid)


def bake_adapters(path: nn.Module, sites: Sequence[Site], bake: Callable[[Any], nn.Module]) -> None:
    """Put ``bake(adapter)`` in the place of the adapter at each site."""
    for site in sites:
        replace_branch(path, site, bake(branch_at(path, site)))
