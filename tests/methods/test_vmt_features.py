"""The tasks' features, formed with few passes over memory, equal the sum of the layers' parts."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from peft_dense import inject
from peft_dense.backbones import Recording, Tap, branch_at, branch_name
from peft_dense.layout import tokens_to_map


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["pvt_v2_b0", "convnext_atto"])
@pytest.mark.parametrize("method", ["vmt", "vmt_lite"])
def test_features_and_gradients_are_those_of_equation_5(method, name, dtype):
    net = timm.create_model(name).to(dtype)
    adapted = inject(net, method, tasks=["a", "b", "c"], gate=0.3).eval()
    torch.manual_seed(0)
    parameters = [parameter for _, parameter in adapted.adapter_parameters()]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.1)
    x, (path,) = torch.randn(2, 3, 64, 96, dtype=dtype), adapted.paths.values()
    with Recording() as record:
        outputs = adapted.info.stage_outputs(path, x)
    sites = adapted.info.find("mlp")
    fast, plain = adapted(x), {}
    for task in adapted.tasks:
        plain[task] = list(outputs)
        for site in sites:
            part = branch_at(path, site).specific(record[Tap(f"{branch_name(site)}.up")], task)
            laid = tokens_to_map(part, *outputs[site.stage].shape[-2:])
            plain[task][site.stage] = plain[task][site.stage] + laid
    assert_close(fast, plain)
    weights = [[torch.randn_like(each) for each in plain[task]] for task in adapted.tasks]
    gradients = []
    for features in (fast, plain):
        pairs = [
            (each, weight)
            for task, row in zip(adapted.tasks, weights, strict=True)
            for each, weight in zip(features[task], row, strict=True)
        ]
        loss = sum((each * weight).mean() for each, weight in pairs)
        gradients.append(torch.autograd.grad(loss, parameters))
    assert_close(*gradients)
