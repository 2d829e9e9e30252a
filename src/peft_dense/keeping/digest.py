"""Fingerprints of weights: exact and fast, or up to rounding."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["changed", "compare_weights", "fingerprint", "weights_id"]

_COLUMNS = 1 << 16  # of 8 bytes: two accumulators and a chunk of this length stay in the cache
_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, 5 modulo 8; the golden ratio in 64 bits
_ROUNDED = ("float32", "bfloat16", "float16")
_TOLERANCE = 2**-7  # rounding to bfloat16 moves a value by at most 2^-9 of itself


def fingerprint(named: Mapping[str, Tensor]) -> str:
    """Digest names, types, shapes and every bit of some tensors, where they lie.

    The bits are read once, as a sequence of rows r_j of 64-bit integers; what is hashed in the end
    is, per column and modulo 2^64, ``sum_j r_j M^(n - j)`` and the same of the upper halves of the
    r_j, with an odd M. A single changed value is always noticed, and so are two that changed places
    or signs; other changes would have to cancel out in both sums. It guards against accidents, not
    against attacks.

    Args:
        named: Tensors by name, in any order, on any device. Of tensors whose values aren't here
            (on ``meta``, or sharded by FSDP) only name, type and shape count.

    Returns:
        Two hexadecimal numbers with a hyphen between them: names, types and shapes; the values
        (``shapes`` where one has none). The device, strides and the mapping's order don't matter.

    Example:
        >>> net = torch.nn.Linear(2, 3)
        >>> before = fingerprint(net.state_dict())
        >>> fingerprint(net.state_dict()) == before
        True
        >>> _ = net.weight.data[0, :2].copy_(net.weight.data[0, :2].flip(0))
        >>> fingerprint(net.state_dict()) == before
        False
    """
    kinds = hashlib.blake2b(digest_size=8)
    mixer = _Mixer()
    whole = True
    for name in sorted(named):
        tensor = named[name].detach()
        kinds.update(repr((name, _kind(tensor), tuple(tensor.shape))).encode())
        whole = whole and _has_values(tensor)
        if whole:
            mixer.add(tensor)
    return f"{kinds.hexdigest()}-{mixer.hexdigest() if whole else 'shapes'}"


def changed(before: str, now: str) -> bool:
    """Tell from two fingerprints whether values changed under the same names, types and shapes.

    False where that can't be known: weights were cast in between, or had no values.
    """
    (kinds, values), (kinds_now, values_now) = before.split("-"), now.split("-")
    known = "shapes" not in (values, values_now)
    return known and kinds == kinds_now and values != values_now


def weights_id(named: Mapping[str, Tensor]) -> dict[str, Any]:
    """Describe weights as JSON values, such that rounded copies are recognised.

    Args:
        named: Parameters and persistent buffers by name.

    Returns:
        ``digest``, the fingerprint; ``dtypes`` that occur; ``rounded``, the fingerprints after
        rounding to each of three types; ``fits``, those of them that hold every value already;
        ``sketch``, per tensor its root mean square and a sum with fixed signs. The last three are
        empty where a tensor has no values.
    """
    values = {name: tensor.detach() for name, tensor in sorted(named.items())}
    about: dict[str, Any] = {
        "digest": fingerprint(values),
        "dtypes": sorted({_kind(tensor) for tensor in values.values()}),
        "rounded": {},
        "fits": [],
        "sketch": {},
    }
    if not all(map(_has_values, values.values())):
        return about
    floats = {name: tensor for name, tensor in values.items() if tensor.is_floating_point()}
    for kind in _ROUNDED:
        dtype = getattr(torch, kind)
        if all(tensor.dtype == dtype for tensor in floats.values()):
            about["rounded"][kind] = about["digest"]
            about["fits"].append(kind)
            continue
        mixer, fits = _Mixer(), True
        for name, tensor in values.items():
            rounded = tensor.to(dtype) if name in floats else tensor
            fits = fits and torch.equal(rounded.to(tensor.dtype), tensor)
            mixer.add(rounded)
        shown = {n: t.to("meta", dtype if n in floats else t.dtype) for n, t in values.items()}
        about["rounded"][kind] = f"{fingerprint(shown).split('-')[0]}-{mixer.hexdigest()}"
        if fits:
            about["fits"].append(kind)
    about["sketch"] = {name: _sketch(tensor) for name, tensor in floats.items()}
    return about


def compare_weights(saved: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Compare two results of :func:`weights_id`.

    Returns:
        ``"same"``: equal to the bit. ``"rounded"``: one is a copy of the other in a type of other
        precision. ``"other"``: anything else. ``"unknown"``: the values of one weren't there (on
        ``meta``, or sharded by FSDP).

    Example:
        >>> net = torch.nn.Linear(2, 3)
        >>> full, half = weights_id(net.state_dict()), weights_id(net.half().state_dict())
        >>> compare_weights(full, full), compare_weights(full, half)
        ('same', 'rounded')
    """
    if saved["digest"].endswith("-shapes") or here["digest"].endswith("-shapes"):
        return "unknown"
    if saved["digest"] == here["digest"]:
        return "same"
    for kind in _ROUNDED:
        low = any(kind in about[key] for about in (saved, here) for key in ("dtypes", "fits"))
        if low and saved["rounded"].get(kind, 0) == here["rounded"].get(kind, 1):
            return "rounded"
    # Two roundings of one set of weights, as of bfloat16 and float16, have no common digest.
    halves = [set(about["fits"]) & {"bfloat16", "float16"} for about in (saved, here)]
    if all(halves) and halves[0] != halves[1] and _alike(saved["sketch"], here["sketch"]):
        return "rounded"
    return "other"


def _has_values(tensor: Tensor) -> bool:
    return not tensor.is_meta and not hasattr(tensor, "to_local")


class _Mixer:
    """Fold tensors into two rows of integers, in order, on whatever device each lies."""

    def __init__(self) -> None:
        self.whole = self.upper = torch.zeros(0, dtype=torch.int64, device="cpu")
        self.used = 0

    def add(self, tensor: Tensor) -> None:
        for row in torch.split(_as_integers(tensor), _COLUMNS):
            self._reserve(row)
            whole, upper = self.whole[: len(row)], self.upper[: len(row)]
            torch.add(row, whole, alpha=_FACTOR, out=whole)
            # Modulo 2^64 two changed top bits of a column cancel out; as halves they don't.
            torch.add(row.bitwise_right_shift(32), upper, alpha=_FACTOR, out=upper)

    def _reserve(self, row: Tensor) -> None:
        if len(row) > self.used:
            more = torch.zeros(len(row) - self.used, dtype=torch.int64, device=self.whole.device)
            self.whole = torch.cat((self.whole, more))
            self.upper = torch.cat((self.upper, more))
            self.used = len(row)
        if self.whole.device != row.device:
            self.whole, self.upper = self.whole.to(row.device), self.upper.to(row.device)

    def hexdigest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for row in (self.whole, self.upper):
            digest.update(row.cpu().numpy().tobytes())
        return digest.hexdigest()


def _as_integers(tensor: Tensor) -> Tensor:
    """See a tensor's bytes, in the order of its values, as 64-bit integers."""
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    flat = tensor.resolve_conj().resolve_neg().contiguous().flatten()
    octets = flat.view(torch.uint8)
    odd = octets.numel() % 8
    if odd:
        octets = torch.cat((octets, octets.new_zeros(8 - odd)))
    elif octets.storage_offset() % 8:  # a part of another tensor may begin anywhere
        octets = octets.clone()
    return octets.view(torch.int64)


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _sketch(tensor: Tensor) -> list[float]:
    """Two numbers that rounding hardly moves: root mean square, and a sum with fixed signs."""
    flat = tensor.contiguous().flatten()
    signs = torch.arange(min(_COLUMNS, flat.numel()), device=flat.device)
    signs = ((signs * _FACTOR) >> 63).float() * 2 + 1
    squares = products = 0.0
    for row in torch.split(flat, _COLUMNS):
        values = row.float()
        squares += float(values @ values)
        products += float(values @ signs[: len(row)])
    count = max(1, flat.numel())
    return [_short(math.sqrt(squares / count)), _short(products / math.sqrt(count))]


def _short(value: float) -> float:
    return float(f"{value:.5g}") if math.isfinite(value) else -1.0  # JSON holds no infinity


def _alike(saved: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    return saved.keys() == here.keys() and all(
        abs(a - b) <= _TOLERANCE * saved[name][0] + 1e-7
        for name in saved
        for a, b in zip(saved[name], here[name], strict=True)
    )
