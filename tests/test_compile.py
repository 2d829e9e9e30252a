"""torch.compile, torch.export and DistributedDataParallel leave the results as they are."""

from __future__ import annotations

import functools

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from peft_dense import AdaptedBackbone, DenseModel, inject
from processes import in_two_processes, needs_gloo
from zoo import perturb

TASKS = ("a.b", "keys")
METHODS = ("vmt_lite", "lora", "polyhistor_lite", "adapter")


@functools.cache
def swin() -> nn.Module:
    torch.manual_seed(0)
    return SwinTransformer(
        img_size=32, window_size=4, embed_dim=12, depths=(2,), num_heads=(1,), num_classes=0
    ).eval()


def adapt(name: str) -> AdaptedBackbone:
    model = swin()  # built, the first time, from a seed of its own
    torch.manual_seed(1)
    adapted = inject(model, name, tasks=TASKS)
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


def x(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(2))


def loss_of(features: dict[str, list[torch.Tensor]]) -> torch.Tensor:
    """A mean over images, so that the loss of a batch is the mean of its halves' losses."""
    generator = torch.Generator().manual_seed(3)
    return sum(
        (f * torch.randn(f.shape[1:], generator=generator)).sum((1, 2, 3)).mean()
        for maps in features.values()
        for f in maps
    )


def results(run, adapted: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Features and gradients of one forward and backward."""
    adapted.zero_grad()
    features = run(images)
    loss_of(features).backward()
    flat = {f"{task} {i}": f for task, maps in features.items() for i, f in enumerate(maps)}
    return flat | gradients(adapted)


def gradients(adapted: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in adapted.adapter_parameters()}


def close(left, right) -> None:
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------ compile


@pytest.mark.parametrize("name", METHODS)
def test_one_compiled_graph_gives_the_eager_results(name):
    torch._dynamo.reset()
    adapted = adapt(name)
    expected = results(adapted, adapted, x())
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    close(results(compiled, adapted, x()), expected)


def test_a_compiled_dense_model_follows_sizes_and_tasks():
    torch._dynamo.reset()
    model = DenseModel(adapt("vmt_lite"), dict.fromkeys(TASKS, 2), width=8).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        for size in ((32, 32), (16, 48), (32, 32)):
            images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(4))
            close(compiled(images), model(images))
        close(compiled(images, ["keys"]), model(images, ["keys"]))


@pytest.mark.parametrize("name", METHODS)
def test_an_extracted_task_can_be_exported(name):
    alone = adapt(name).extract_task("a.b")
    program = torch.export.export(alone, (x(),))
    close(program.module()(x()), alone(x()))


@pytest.mark.parametrize("name", ["lora", "polyhistor_lite"])
def test_a_merged_task_can_be_exported(name):
    alone = adapt(name).extract_task("a.b").merge()
    program = torch.export.export(alone, (x(),))
    close(program.module()(x()), alone(x()))


# ------------------------------------------------------------------------------ two processes


def of_my_half(rank: int, names: tuple[str, ...]) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for name in names:
        adapted = adapt(name).double()
        wrapped = nn.parallel.DistributedDataParallel(adapted)
        loss_of(wrapped(x(4)[2 * rank : 2 * rank + 2].double())).backward()
        found[name] = gradients(adapted)
    return found


@needs_gloo
def test_two_processes_give_the_gradients_of_the_whole_batch(tmp_path):
    """DistributedDataParallel over two processes, half of the batch each."""
    names = ("vmt_lite", "polyhistor_lite")
    first, second = in_two_processes(of_my_half, tmp_path, names)
    for name in names:
        adapted = adapt(name).double()
        loss_of(adapted(x(4).double())).backward()
        expected = gradients(adapted)
        close(first[name], second[name])
        close(first[name], expected)
