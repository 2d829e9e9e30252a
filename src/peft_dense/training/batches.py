"""Which images a step sees, and how they are drawn: functions of seed and step alone.

Nothing has a state that a checkpoint would have to hold, and neither the number of processes nor
that of loading workers changes what is drawn.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from peft_dense.data import blank_item, collate
from peft_dense.data.labels import Item
from peft_dense.errors import DataError, PeftDenseError
from peft_dense.training.recipe import Recipe
from peft_dense.training.stopping import SIGNALS

__all__ = ["Batches", "Draws", "load", "load_batches", "part_of", "seed_of"]


def seed_of(*numbers: int) -> int:
    """Mix numbers into a seed, so that no two uses of a run's seed share random numbers.

    Example:
        >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
        (True, False)
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits


class Draws(Dataset[Item]):
    """Give the item of an ``(epoch, index)``, with random numbers of its own.

    Args:
        data: Items; its transforms draw from torch's generator.
        seed: Of the run.
        skip_bad: In place of an image that can't be read, give a black one without labels and the
            reason in ``meta["skipped"]``; such an item neither trains nor scores.

    Example:
        >>> from peft_dense.data import RandomFlip, Scenes
        >>> draws = Draws(Scenes(2, (16, 16), ["sal"], transform=RandomFlip()), seed=0)
        >>> bool((draws[3, 1]["image"] == draws[3, 1]["image"]).all())
        True
    """

    def __init__(self, data: Any, seed: int, skip_bad: bool = False) -> None:
        self.data = data
        self.seed = seed
        self.skip_bad = skip_bad

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, draw: tuple[int, int]) -> Item:
        epoch, index = draw
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, epoch, index))
            try:
                item: Item = self.data[index]
            except DataError as error:
                if not self.skip_bad:
                    raise
                item = self._blank(str(error))
        return item

    def _blank(self, reason: str) -> Item:
        item = blank_item(self.data)
        transform = getattr(self.data, "transform", None)
        item = transform(item) if transform else item
        item["meta"] = item["meta"] | {"skipped": reason}
        return item


class Batches(Sampler[list[tuple[int, int]]]):
    """Give this process's share of every batch from ``start`` to ``steps``.

    An epoch is a permutation, cut into batches; the rest at its end is left out. Of a batch,
    process ``rank`` of ``world`` takes every ``world``-th image.

    Args:
        length: Number of images.
        batch: Images per step, over all processes; at most all.
        steps: Where the run ends.
        start: The first step, from 0.
        seed: Of the run.
        rank: Number of this process.
        world: Number of processes.

    Example:
        >>> both = [list(Batches(10, 4, 2, rank=rank, world=2)) for rank in (0, 1)]
        >>> len({index for share in both for batch in share for _, index in batch})
        8
    """

    def __init__(
        self,
        length: int,
        batch: int,
        steps: int,
        *,
        start: int = 0,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length, self.batch = length, min(batch, length)
        self.start, self.steps = start, steps
        self.seed, self.rank, self.world = seed, rank, world
        if self.batch < world:
            raise DataError(
                f"a batch of {self.batch} images can't be shared by {world} processes; use a "
                "larger batch or fewer processes."
            )

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled, order = -1, torch.empty(0)
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.length // self.batch)
            if epoch != shuffled:
                generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
                shuffled, order = epoch, torch.randperm(self.length, generator=generator)
            whole = order[place * self.batch :][: self.batch]
            yield [(epoch, int(index)) for index in whole[self.rank :: self.world]]


def load_batches(
    data: Any, recipe: Recipe, step: int, steps: int, accelerator: Accelerator
) -> Iterator[Item]:
    """Load this process's share of the batches from ``step`` to ``steps``.

    Raises:
        DataError: An item can't be read, without ``recipe.skip_bad``.
    """
    sampler = Batches(
        len(data),
        recipe.batch,
        steps,
        start=step,
        seed=recipe.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    draws = Draws(data, recipe.seed, recipe.skip_bad)
    return load(draws, sampler, recipe.workers, accelerator.device)


def load(
    draws: Draws,
    batches: Iterable[Sequence[tuple[int, int]]],
    workers: int,
    device: torch.device,
) -> Iterator[Item]:
    """Load batches of draws; errors of this library come from a worker as they were raised.

    Torch's loader would turn them into a traceback within a message.

    Args:
        draws: Where items come from.
        batches: The draws of each batch.
        workers: Processes that load; 0 for this one.
        device: Where the batches will go; memory is pinned for a GPU.
    """
    loader = DataLoader(
        _ErrorsAsItems(draws),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_parent,
    )
    for batch in loader:
        if isinstance(batch, PeftDenseError):
            raise batch
        yield batch


class _ErrorsAsItems(Dataset[Any]):
    """Give errors of this library as items, which a worker can pass on."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws

    def __getitem__(self, draw: tuple[int, int]) -> Item | PeftDenseError:
        try:
            return self.draws[draw]
        except PeftDenseError as error:
            return error


def _collate(items: Sequence[Item | PeftDenseError]) -> Item | PeftDenseError:
    """Stack items, or give the first error."""
    whole = [item for item in items if not isinstance(item, PeftDenseError)]
    if len(whole) < len(items):
        return next(item for item in items if isinstance(item, PeftDenseError))
    try:
        return collate(whole)
    except PeftDenseError as error:
        return error


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal; the parent ends the workers."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def part_of(batch: Item, part: int, parts: int) -> Item:
    """Take every ``parts``-th item of a batch, from ``part`` on; tensors stay views.

    Example:
        >>> part_of({"image": torch.arange(5), "meta": list("abcde")}, 1, 2)
        {'image': tensor([1, 3]), 'meta': ['b', 'd']}
    """
    values: dict[str, Tensor | Sequence[Any]] = batch
    return {name: value[part::parts] for name, value in values.items()}
