"""Every method that goes on a backbone is traced into one graph, with the eager results."""

from __future__ import annotations

import functools

import pytest
import torch
from timm.models.convnext import ConvNeXt
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from choice import over
from peft_dense import inject, methods
from peft_dense.errors import NoSiteError
from zoo import perturb

TASKS = ("a.b", "keys")
SMALL = {  # tracing takes as long as a backbone has blocks: far fewer than in zoo.py
    "swin": lambda: SwinTransformer(  # the second block's windows are shifted
        img_size=32, window_size=4, embed_dim=32, depths=(2,), num_heads=(1,), num_classes=0
    ),
    "pvtv2": lambda: PyramidVisionTransformerV2(
        depths=(1, 1), embed_dims=(32, 32), num_heads=(1, 2), sr_ratios=(2, 1), num_classes=0
    ),
    "convnext": lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(32, 32, 32, 32), num_classes=0),
}


@functools.cache
def original(family: str) -> nn.Module:
    torch.manual_seed(0)
    return SMALL[family]().eval()


@over(SMALL, methods())
def test_one_graph_gives_the_eager_results(family, name):
    """What dynamo can't trace is an error, and a second batch asks for no new graph."""
    model = original(family)
    torch.manual_seed(1)
    try:
        adapted = inject(model, name, tasks=TASKS)
    except NoSiteError as error:
        pytest.skip(str(error).split(";")[0])
    perturb(adapted, [p for _, p in adapted.adapter_parameters()])
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: list[torch.Tensor]):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(adapted, fullgraph=True, backend=keep)
    found, again = compiled(x), compiled(-x)  # before any other pass of this process
    torch.testing.assert_close(found, adapted(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, adapted(-x), rtol=1e-4, atol=1e-5)
    (graph,) = graphs
    # fullgraph takes a number read off a tensor into the graph; without it the graph ends there.
    assert not [node for node in graph.graph.nodes if node.target == "item"]
