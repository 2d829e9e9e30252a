"""The probe's forwards of a shadow: at which size, with how many channels, in which mode."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peft_dense.backbones import stages
from peft_dense.backbones.families import Family
from peft_dense.backbones.recall import Recall
from peft_dense.backbones.stem import channels_to_try, first_layer_checked
from peft_dense.backbones.watch import Calls, Watch
from peft_dense.errors import UnsupportedModelError

__all__ = ["Forward", "Runner", "Size"]

Size = tuple[int, int]

_SIZES = (224, 256, 384, 192, 448, 512, 128, 64)
"""Sizes that are tried, in this order, on a model that doesn't say for which it was built."""


@dataclass(frozen=True)
class Forward:
    """What one forward left: all outputs of the tap, and the calls of the modules."""

    outputs: list[Any]
    calls: Calls
    size: Size
    batch: int


class Runner:
    """Run a shadow and record what its modules do.

    Args:
        model: The model itself, asked only for the size it was built for.
        family: What the probe can't see of it.
        shadow: Its shadow, hooked until :meth:`close`.

    Attributes:
        tap: How the stages are reached; complete after the first forward.
        channels: How many channels images have; known after the first forward.
    """

    def __init__(self, model: nn.Module, family: Family, shadow: nn.Module) -> None:
        self.name, self.family, self.model = type(model).__name__, family, shadow
        self.sizes = _native_sizes(model)
        self.kind = next((p.dtype for p in shadow.parameters() if p.is_floating_point()), None)
        self.tap = stages.first_tap(shadow, family)
        self.channels = 3
        self._tapped = False
        self._watch, self._recall = Watch(shadow), Recall()

    def close(self) -> None:
        """Take the hooks off."""
        self._watch.close()

    def first(self) -> Forward:
        """Run at the native size, with the right number of channels."""
        failed: list[Exception] = []
        for size in self.sizes:
            for channels in channels_to_try(self.model):
                forward = self._attempt(size, channels, failed)
                if forward is not None:
                    return forward
        height, width = self.sizes[0]
        raise UnsupportedModelError(
            f"{self.name} failed on an image of {height}x{width} with {self.channels} channels: "
            f"{failed[0]}. Build it for the size you want, or describe it with "
            "family=Family(features=..., flexible=...)."
        ) from failed[0]

    def _attempt(self, size: Size, channels: int, failed: list[Exception]) -> Forward | None:
        """Run with so many channels, or with as many as the first layer then asks for."""
        self.channels = channels
        needed: list[int] = []
        try:
            with first_layer_checked(self.model, channels) as needed:
                return self.run(size, 1)
        except UnsupportedModelError:
            raise
        except Exception as error:  # whatever the model's code raises
            if needed:
                return self._attempt(size, needed[0], failed)
            failed.append(error)
        return None

    def run(self, size: Size, batch: int) -> Forward:
        """Run the model; its first run also finds where in its output the stages are."""
        try:
            return self._run(size, batch, self._recall)
        except UnsupportedModelError:
            raise
        except Exception:  # not every operation runs under a dispatch mode: torch's scans may not
            pass
        return self._run(size, batch, nullcontext())

    def _run(self, size: Size, batch: int, mode: AbstractContextManager[Any]) -> Forward:
        image = torch.empty(
            batch, self.channels, *size, device="meta", dtype=self.kind or torch.float32
        )
        with self._watch.record(image) as calls, mode:
            if self.tap.source == "forward" and not self._tapped:
                output = self.model(image, **dict(self.tap.keywords))
                tap = stages.tap_of(output, self.tap)
                if tap is None:
                    raise UnsupportedModelError(
                        f"{self.name} has no forward_intermediates and its forward returns no list "
                        "of maps, so its stage outputs can't be reached. Pass "
                        "family=Family(features=lambda model, x: [finest, ..., coarsest])."
                    )
                self.tap, self._tapped = tap, True
                outputs = tap.entries(output)
            else:
                outputs = self.tap.reach(self.model, image, self.family.features)
        return Forward(outputs, calls, size, batch)

    def two(self, size: Size) -> Forward | None:
        """Run two images in train mode, or in eval mode where train mode fails."""
        for mode in (True, False):
            self.model.train(mode)
            try:
                return self.run(size, 2)
            except Exception:  # any failure means: not at this size
                continue
            finally:
                self.model.eval()
        return None


def _native_sizes(model: nn.Module) -> list[Size]:
    """Image sizes to try: first the one the model says it was built for, then usual ones."""
    embed = getattr(model, "patch_embed", None)
    told = (
        getattr(embed, "img_size", None),
        getattr(model, "img_size", None),
        (getattr(model, "pretrained_cfg", None) or {}).get("input_size"),
        getattr(getattr(model, "config", None), "image_size", None),
    )
    found: list[Size] = []
    for size in told:
        if isinstance(size, int):
            found.append((size, size))
        elif isinstance(size, (tuple, list)) and len(size) >= 2:
            found.append((int(size[-2]), int(size[-1])))
    # A model may have been built for another size than its pretrained weights.
    return list(dict.fromkeys((*found, *((size, size) for size in _SIZES))))
