"""FSDP2 over two processes, at the root, per stage and per block, gives one process's results."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from timm.models.swin_transformer import SwinTransformer

from peft_dense import AdaptedBackbone, inject, methods
from peft_dense.methods import method
from peft_dense.ownership import slots
from processes import in_two_processes, needs_gloo
from zoo import perturb

fsdp = pytest.importorskip("torch.distributed.fsdp")
TASKS = ["a", "b"]
ONE_PATH = [name for name in methods() if method(name).one_path]
WRAPS = ("root", "stage", "block")


def adapt(name: str) -> AdaptedBackbone:
    torch.manual_seed(0)
    model = SwinTransformer(
        img_size=16,
        patch_size=2,
        window_size=4,
        embed_dim=16,
        depths=(1, 1),
        num_heads=(1, 2),
        drop_path_rate=0.0,
    )
    # Dropout draws in each process by itself.
    hyper = {"dropout": 0.0} if name == "adaptformer" else {}
    adapted = inject(model, name, tasks=TASKS, **hyper)
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    return adapted


def x() -> torch.Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def loss_of(features) -> torch.Tensor:
    return sum((i + 1) * f.square().mean() for fs in features.values() for i, f in enumerate(fs))


def shard(adapted: AdaptedBackbone, wrap: str, mesh) -> None:
    for stage in adapted.paths["shared"].layers:
        if wrap == "block":
            for block in stage.blocks:
                fsdp.fully_shard(block, mesh=mesh)
        if wrap != "root":
            fsdp.fully_shard(stage, mesh=mesh)
    fsdp.fully_shard(adapted, mesh=mesh)


def sharded(rank: int) -> dict[tuple[str, str], tuple[dict, dict]]:
    """By method and wrap: the outputs for this process's half, and the whole gradients."""
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    found = {}
    for name in ONE_PATH:
        for wrap in WRAPS:
            adapted = adapt(name)
            shard(adapted, wrap, mesh)
            features = adapted(x()[2 * rank : 2 * rank + 2])
            outputs = {t: [f.detach() for f in fs] for t, fs in features.items()}
            loss = loss_of(features)
            if loss.requires_grad:
                loss.backward()
            grads = {
                n: p.grad.full_tensor()
                for n, p in adapted.adapter_parameters()
                if p.grad is not None
            }
            found[name, wrap] = (outputs, grads)
    return found


@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="torch without fully_shard")
@needs_gloo
def test_shards_of_one_path_give_the_whole_models_outputs_and_gradients(tmp_path):
    found = in_two_processes(sharded, tmp_path)
    for name in ONE_PATH:
        adapted = adapt(name)
        features = adapted(x())
        loss = loss_of(features)
        if loss.requires_grad:
            loss.backward()
        grads = {n: p.grad for n, p in adapted.adapter_parameters()}
        for wrap in WRAPS:
            for rank, (outputs, shared) in enumerate(each[name, wrap] for each in found):
                for task, maps in features.items():
                    for mine, whole in zip(outputs[task], maps, strict=True):
                        half = whole[2 * rank : 2 * rank + 2]
                        torch.testing.assert_close(mine, half, rtol=1e-4, atol=1e-5)
                assert shared.keys() == grads.keys(), (name, wrap)
                for key, grad in shared.items():
                    torch.testing.assert_close(grad, grads[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ONE_PATH)
def test_every_module_that_holds_frozen_tensors_is_called(name):
    """What nothing calls can't be sharded by block: its tensors would be in two groups (A8)."""
    adapted = adapt(name)
    assert {key for key, _ in adapted.named_children()} <= {"paths", "shared"}
    called: set[int] = set()
    for module in adapted.modules():
        module.register_forward_hook(lambda m, *_: called.add(id(m)))
    adapted(x())
    holders = {slot.name: slot.module for slot in slots(adapted) if slot.frozen}
    assert holders or name == "multitask_full"
    assert not [key for key, module in holders.items() if id(module) not in called]
