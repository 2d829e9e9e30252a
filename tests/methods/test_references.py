"""Methods against forms written out by hand, and against another library's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peft_dense import inject
from peft_dense.backbones import branch_at
from peft_dense.nn import DoRALinear, LowRankLinear
from zoo import build, image, perturb

close = torch.testing.assert_close


def adapted(name: str, **hyperparameters):
    torch.manual_seed(0)
    made = inject(build("swin"), name, tasks=("a", "b"), **hyperparameters)
    perturb(made, [p for _, p in made.adapter_parameters()])
    return made


def places(made, kinds: str, task: str = "b"):
    """Yield site, adapter and an input for it."""
    for site in made.info.find(kinds):
        yield site, branch_at(made.paths[task], site), torch.randn(2, 9, site.width)


def bottleneck(branch, x, down, up, activation=F.relu):
    """The branch with its two weights given as (in, out) matrices."""
    x = F.layer_norm(x, x.shape[-1:], branch.norm.weight, branch.norm.bias)
    return activation(x @ down + branch.down.bias) @ up + branch.up.bias


def test_phm_is_a_sum_of_kronecker_products_with_one_rule_for_all_layers():
    made = adapted("phm")
    rule = made.shared.tasks["b"].weight
    for _, branch, x in places(made, "mlp"):
        dense = [
            sum(torch.kron(rule[i], layer.fast[i]) for i in range(4))
            for layer in (branch.down, branch.up)
        ]
        close(branch(x), bottleneck(branch, x, *dense, F.gelu), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "kinds"), [("compacter", "both"), ("compacter_pp", "mlp")])
def test_compacter_has_outer_products_for_fast_matrices(name, kinds):
    made = adapted(name)
    rule = made.shared.tasks["b"].weight
    for _, branch, x in places(made, kinds):
        dense = []
        for layer in (branch.down, branch.up):
            outer = [torch.outer(layer.fast_in[i, :, 0], layer.fast_out[i, 0]) for i in range(4)]
            dense.append(sum(torch.kron(rule[i], outer[i]) for i in range(4)))
        close(branch(x), bottleneck(branch, x, *dense, F.gelu), rtol=1e-4, atol=1e-4)


def test_low_rank_adapter_multiplies_two_thin_matrices():
    made = adapted("low_rank_adapter", rank=2)
    for _, branch, x in places(made, "mlp"):
        dense = [layer.down @ layer.up for layer in (branch.down, branch.up)]
        close(branch(x), bottleneck(branch, x, *dense), rtol=1e-4, atol=1e-4)


def generate(layer: nn.Module, v: torch.Tensor, gain: float = 3) -> torch.Tensor:
    """What a generator makes of an embedding of 64."""
    return (layer.weight @ v + layer.bias) * gain / 64


def read_embedding(net: nn.Sequential, v: torch.Tensor) -> torch.Tensor:
    first, _, second, norm = net
    hidden = F.relu((first.weight @ v + first.bias) / (2 * len(v)))
    read = (second.weight @ hidden + second.bias) / 128
    return F.layer_norm(read, (64,), norm.weight, norm.bias)


@pytest.mark.parametrize("name", ["hyperformer", "polyhistor"])
def test_hypernetworks_follow_equations_2_and_3(name):
    made = adapted(name)
    embedding = made.shared.tasks["b"].weight
    for _, branch, x in places(made, made.method.sites):
        block, place, _ = branch.key
        net = made.shared.blocks[block]
        d, n = branch.weights()["down"].shape
        v = read_embedding(net.trunk, embedding)
        made_by = net.sites[place]
        if name == "hyperformer":
            down, up = (
                generate(part.generator, v).reshape(shape)
                for part, shape in (
                    (made_by.projections.down, (d, n)),
                    (made_by.projections.up, (n, d)),
                )
            )
        else:
            down, up = (
                generate(part.p, v).reshape(rows, -1) @ generate(part.q, v).reshape(columns, -1).T
                for part, rows, columns in (
                    (made_by.projections.down, d, n),
                    (made_by.projections.up, n, d),
                )
            )
        rest = generate(made_by.vectors.generator, v)
        down_bias, up_bias, norm_weight, norm_bias = rest.split([n, d, d, d])
        normed = F.layer_norm(x, (d,), 1 + norm_weight, norm_bias)
        close(branch(x), F.relu(normed @ down + down_bias) @ up + up_bias, rtol=1e-3, atol=1e-3)


def test_polyhistor_lite_follows_equations_5_and_6():
    made = adapted("polyhistor_lite")
    hyper = made.shared
    for layer, (_, branch, x) in enumerate(places(made, "mlp")):
        rows = hyper.layers[layer]
        task = hyper.tasks["b"]["embedding"].weight
        read = torch.stack([read_embedding(hyper.reader, torch.cat([task, row])) for row in rows])
        weights = {}
        for name, part in (("down", hyper.projections.down), ("up", hyper.projections.up)):
            kernel = hyper.kernels[layer].kernels[name].weight
            templates = part(read)
            weights[name] = (
                templates[0]
                if kernel is None
                else sum(torch.kron(t, k) for t, k in zip(templates, kernel, strict=True))
            )
            close(branch.weights()[name], weights[name], rtol=1e-3, atol=1e-3)
        assert branch(x).shape == x.shape


def test_vmt_features_follow_equations_3_to_5():
    made = adapted("vmt")
    kept = {}
    path, x = made.paths["shared"], image(1)
    for site in made.info.find("mlp"):
        path.get_submodule(site.name).register_forward_hook(
            lambda module, args, out, name=site.name: kept.update({name: args[0]})
        )
    features = made(x)
    outputs = made.info.stage_outputs(path, x)
    for task in made.tasks:
        for stage, output in enumerate(outputs):
            expected = output.clone()
            for site in made.info.find("mlp"):
                if site.stage != stage:
                    continue
                layer = branch_at(path, site)
                z = F.layer_norm(kept[site.name], (site.width,), layer.norm.weight, layer.norm.bias)
                h = F.relu(z @ layer.down.weight.T) @ layer.up.weight.T + layer.up.bias
                own = layer.tasks[task]
                part = own.scale * 0.5 * (4 * h) + own.shift
                expected += part.mT.reshape(output.shape)
            close(features[task][stage], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dora", [False, True])
def test_lora_and_dora_equal_those_of_hf_peft(dora):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base, x = nn.Sequential(nn.Linear(12, 20)), torch.randn(5, 12)
    weight, bias = base[0].weight.detach().clone(), base[0].bias.detach().clone()
    config = peft.LoraConfig(r=3, lora_alpha=7, target_modules=["0"], use_dora=dora)
    theirs = peft.get_peft_model(base, config)
    layer = theirs.base_model.model[0]
    own = nn.Linear(12, 20)
    own.load_state_dict({"weight": weight, "bias": bias})
    ours = (DoRALinear if dora else LowRankLinear)(own, rank=3, alpha=7.0)
    with torch.no_grad():
        ours.down.copy_(layer.lora_A["default"].weight)
        ours.up.normal_()
        layer.lora_B["default"].weight.copy_(ours.up)
        if dora:
            ours.magnitude.uniform_(0.5, 2)
            layer.lora_magnitude_vector["default"].weight.copy_(ours.magnitude)
    close(ours(x), theirs(x))
    for output in (ours(x), theirs(x)):
        output.square().sum().backward()
    close(ours.down.grad, layer.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-4)
    close(ours.up.grad, layer.lora_B["default"].weight.grad, rtol=1e-4, atol=1e-4)
    if dora:
        close(
            ours.magnitude.grad,
            layer.lora_magnitude_vector["default"].weight.grad,
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("placement", ["parallel", "serial"])
@pytest.mark.parametrize("name", ["adapter", "polyhistor", "polyhistor_lite"])
def test_a_parallel_adapter_reads_what_goes_in_and_a_serial_one_what_comes_out(name, placement):
    made = adapted(name, placement=placement)
    for site, branch, x in places(made, "mlp"):
        module = made.paths[made.tasks[-1]].get_submodule(site.name)
        plain = module.forward(x)  # without the hooks that the module's call has
        close(module(x), plain + branch(x if placement == "parallel" else plain))
