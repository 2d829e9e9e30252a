"""An ONNX file of a DenseModel has an output per task under its name, and takes any batch."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from peft_dense import DenseModel, inject
from zoo import perturb

CHANNELS = {"semseg": 3, "a.b": 3, "depth": 3}  # alike, so that only the values tell them apart


def small(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family == "swin":
        return SwinTransformer(
            img_size=32, window_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2)
        )
    return PyramidVisionTransformerV2(
        depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 1, 1)
    )


@pytest.mark.parametrize(
    ("family", "name", "kept"),
    [
        ("swin", "vmt_lite", None),  # the tasks' parts come from a record
        ("pvtv2", "convpass", None),  # the map's size from a stack
        ("swin", "polyhistor_lite", "a.b"),  # weights from a hypernetwork, merged
    ],
)
def test_outputs_are_named_by_their_task_and_the_batch_is_free(family, name, kept, tmp_path):
    encoder = inject(small(family), name, tasks=list(CHANNELS))
    model = DenseModel(encoder, CHANNELS, width=8).eval()
    perturb(model, [p for p in model.parameters() if p.requires_grad])
    if kept is not None:
        model = model.extract_task(kept).merge()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    program = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        verbose=False,
        output_names=list(model.tasks),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
    )
    program.save(str(tmp_path / "model.onnx"))
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    assert names == list(model.tasks)
    (given,) = session.get_inputs()
    for size in (1, 7):
        x = torch.randn(size, 3, 32, 32, generator=torch.Generator().manual_seed(size))
        with torch.no_grad():
            expected = model(x)
        for task, got in zip(names, session.run(names, {given.name: x.numpy()}), strict=True):
            scale = expected[task].abs().max().item()
            np.testing.assert_allclose(got / scale, expected[task].numpy() / scale, atol=1e-4)
            others = [o for t, o in expected.items() if t != task]
            assert all((o - expected[task]).abs().max() > 0.01 * scale for o in others)
