"""Two processes over gloo that run a function of a test file, wherever the file lies."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

needs_gloo = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)


def in_two_processes(worker: Callable[..., Any], folder: Path, *arguments: Any) -> list[Any]:
    """What ``worker(rank, *arguments)`` returns in each of two processes that form a group.

    A new process knows neither how pytest named the file of ``worker`` nor the folder it is in: it
    gets the file's path and the function's name, and imports by them.
    """
    file, name = inspect.getfile(worker), worker.__qualname__
    mp.spawn(_run, (str(folder), file, name, arguments), nprocs=2)
    return [torch.load(folder / f"returned.{rank}.pt", weights_only=False) for rank in (0, 1)]


def _run(rank: int, folder: str, file: str, name: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    # Before there is a group: what timm imports keeps the one there is, whose threads then outlive
    # it, and now and then abort the process at its end.
    spec = spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    try:
        torch.save(getattr(module, name)(rank, *arguments), f"{folder}/returned.{rank}.pt")
    finally:
        # Its threads let go of the last tensors under Python's lock, for which torch 2.7, which
        # holds it while it waits for them, would wait forever.
        time.sleep(0.1)
        dist.destroy_process_group()
