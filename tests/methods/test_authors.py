"""Baselines against their authors' equations, written out by hand: forward, start, two steps.

The hand-written forms run on plain tensors. A step is one of SGD with momentum and one of Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from peft_dense import inject
from peft_dense.backbones import branch_at
from zoo import build, image, perturb

close = torch.testing.assert_close
Tensors = dict[str, Tensor]


def adapted(name: str, drawn: bool = True, **hyperparameters):
    torch.manual_seed(0)
    made = inject(build("swin"), name, tasks=("a", "b"), **hyperparameters).double()
    if drawn:
        perturb(made, [p for _, p in made.adapter_parameters()])
    return made


def two_steps(parameters: list[Tensor], loss: Callable[[], Tensor]) -> None:
    """Take a step of SGD with momentum, then one of Adam."""
    sgd, adam = torch.optim.SGD(parameters, 0.05, momentum=0.9), torch.optim.Adam(parameters, 0.01)
    for optimizer in (sgd, adam):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def copies(module: nn.Module, **others: Tensor) -> Tensors:
    own = dict(module.named_parameters()) | others
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in own.items()}


def check_branch(module: nn.Module, width: int, form: Callable[..., Tensor], **shared) -> None:
    """A branch is the form before and after two steps, and its weights stay those of the form."""
    x, target = torch.randn(2, 5, width).double(), torch.randn(2, 5, width).double()
    theirs = copies(module, **shared)
    close(module(x), form(x, theirs))
    ours = dict(module.named_parameters()) | shared
    two_steps(list(ours.values()), lambda: (module(x) - target).square().mean())
    two_steps(list(theirs.values()), lambda: (form(x, theirs) - target).square().mean())
    for name in ours:
        close(ours[name], theirs[name], msg=lambda text, name=name: f"{name}: {text}")


def normed(x: Tensor, w: Tensors) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w["norm.weight"], w["norm.bias"])


def phm_form(x: Tensor, w: Tensors, at: str) -> Tensor:
    def matrix(layer: str) -> Tensor:
        def fast(i: int) -> Tensor:
            if f"{layer}.fast" in w:
                return w[f"{layer}.fast"][i]
            return torch.outer(w[f"{layer}.fast_in"][i, :, 0], w[f"{layer}.fast_out"][i, 0])

        return sum(torch.kron(w["rule"][i], fast(i)) for i in range(4))

    read = normed(x, w) if at == "in" else x
    hidden = read @ matrix("down") + w["down.bias"]
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))  # GELU
    y = hidden @ matrix("up") + w["up.bias"]
    return normed(y, w) if at == "out" else y


@pytest.mark.parametrize("norm", ["in", "out"])
@pytest.mark.parametrize("name", ["phm", "compacter", "compacter_pp"])
def test_phm_and_compacter_take_their_authors_steps(name, norm):
    made = adapted(name, norm=norm)
    site = made.info.find("mlp")[1]
    branch, rule = branch_at(made.paths["b"], site), made.shared.tasks["b"].weight
    check_branch(branch, site.width, lambda x, w: phm_form(x, w, norm), rule=rule)


def test_phm_starts_with_small_rules_and_glorots_fast_matrices():
    made = adapted("phm", drawn=False)
    rules = torch.cat([made.shared.tasks[task].weight.flatten() for task in made.tasks])
    assert 0.008 < rules.std() < 0.012
    assert abs(rules.mean()) < 0.004
    assert rules.abs().max() > 0.018  # beyond a uniform distribution of that deviation
    for site in made.info.find("mlp"):
        branch = branch_at(made.paths["b"], site)
        fast = branch.down.fast
        bound = math.sqrt(2) * math.sqrt(6 / (fast.shape[1] + fast.shape[2]))
        assert 0.8 * bound < fast.abs().max() <= bound
        assert not branch.down.bias.any()
        assert not branch.up.bias.any()


@pytest.mark.parametrize("name", ["compacter", "compacter_pp"])
def test_compacter_starts_with_glorots_factors(name):
    made = adapted(name, drawn=False)
    for site in made.info.find("mlp"):
        down = branch_at(made.paths["a"], site).down
        for factor in (down.fast_in, down.fast_out):
            bound = math.sqrt(2) * math.sqrt(6 / (factor.shape[1] + factor.shape[2]))
            assert 0.7 * bound < factor.abs().max() <= bound
        assert not down.bias.any()
    assert 0.005 < made.shared.tasks["a"].weight.std() < 0.015


@pytest.mark.parametrize(("name", "kinds"), [("phm", "mlp"), ("compacter", "both")])
def test_phm_and_compacter_sit_after_the_sublayer(name, kinds):
    made = adapted(name)
    for site in made.info.find(kinds):
        if site.kind != "mlp":
            continue
        module, x = made.paths["a"].get_submodule(site.name), torch.randn(2, 9, site.width).double()
        plain = module.forward(x)
        close(module(x), plain + branch_at(made.paths["a"], site)(plain))
    assert made.method.sites == kinds


def test_adaptformer_takes_its_authors_steps_with_dropout():
    made = adapted("adaptformer", width=8)
    site = made.info.find("mlp")[0]
    branch = branch_at(made.paths["shared"], site).train()

    def form(x: Tensor, w: Tensors) -> Tensor:
        waist = (x @ w["down.weight"].T + w["down.bias"]).clamp(min=0)
        torch.manual_seed(5)
        waist = F.dropout(waist, 0.1, training=True)
        return 0.1 * (waist @ w["up.weight"].T + w["up.bias"])

    class Seeded(nn.Module):  # dropout draws alike on both sides
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = branch.down, branch.up

        def forward(self, x: Tensor) -> Tensor:
            torch.manual_seed(5)
            return branch(x)

    check_branch(Seeded(), site.width, form)


def test_adaptformer_drops_a_tenth_of_the_waist_in_train_mode_only():
    made = adapted("adaptformer")
    site = made.info.find("mlp")[0]
    branch, x = branch_at(made.paths["shared"], site), torch.randn(64, 50, site.width).double()
    seen = []
    branch.up.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    branch.eval()(x)
    branch.train()(x)
    alive = seen[0] > 0
    lost = (seen[1][alive] == 0).double().mean()
    assert 0.09 < lost < 0.11
    close(seen[1][seen[1] > 0], seen[0][seen[1] > 0] / 0.9)


def test_adaptformer_starts_with_its_biases_at_zero_and_downs_as_a_linear_is_drawn():
    made = adapted("adaptformer", drawn=False)
    for site in made.info.find("mlp"):
        branch = branch_at(made.paths["shared"], site)
        assert not branch.down.bias.any()
        assert not branch.up.bias.any()
        assert not branch.up.weight.any()
        bound = 1 / math.sqrt(site.width)
        assert 0.95 * bound < branch.down.weight.abs().max() <= bound


@pytest.mark.parametrize("norm", ["in", "out"])
def test_hyperformer_takes_its_authors_steps(norm):
    made = adapted("hyperformer", norm=norm, activation="gelu")
    site = made.info.find("mlp")[0]
    branch = branch_at(made.paths["b"], site)
    block, place, _ = branch.key
    net, d = made.shared.blocks[block], site.width
    n = branch.weights()["down"].shape[1]

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.made, self.task = net.trunk, net.sites[place], made.shared.tasks["b"]

        def forward(self, x: Tensor) -> Tensor:
            return branch(x)

    def form(x: Tensor, w: Tensors) -> Tensor:
        z = w["task.weight"]
        hidden = ((w["trunk.0.weight"] @ z + w["trunk.0.bias"]) / 2 / len(z)).clamp(min=0)
        read = (w["trunk.2.weight"] @ hidden + w["trunk.2.bias"]) / len(hidden)
        v = F.layer_norm(read, (64,), w["trunk.3.weight"], w["trunk.3.bias"])

        def made_by(name: str) -> Tensor:
            return (w[f"{name}.weight"] @ v + w[f"{name}.bias"]) * 3 / 64

        down = made_by("made.projections.down.generator").reshape(d, n)
        up = made_by("made.projections.up.generator").reshape(n, d)
        vectors = made_by("made.vectors.generator").split([n, d, d, d])
        norms = {"norm.weight": 1 + vectors[2], "norm.bias": vectors[3]}
        read = normed(x, norms) if norm == "in" else x
        y = F.gelu(read @ down + vectors[0]) @ up + vectors[1]
        return normed(y, norms) if norm == "out" else y

    check_branch(Whole(), d, form)


def test_hyperformers_task_embeddings_are_normal_and_its_ups_silent():
    made = adapted("hyperformer", drawn=False)
    drawn = torch.cat([made.shared.tasks[task].weight for task in made.tasks])
    assert 1.8 < drawn.std() < 2.2
    for site in made.info.find("both"):
        weights = branch_at(made.paths["a"], site).weights()
        assert not weights["up"].any()
        assert not weights["norm_bias"].any()
        close(weights["norm_weight"], torch.ones_like(weights["norm_weight"]))


def windows(x: Tensor, size: int) -> Tensor:
    b, h, w, c = x.shape
    x = x.reshape(b, h // size, size, w // size, size, c).transpose(2, 3)
    return x.reshape(b, -1, size * size, c)


def vpt_block(block: nn.Module, x: Tensor, prompts: Tensor) -> Tensor:
    """The authors' block: prompts and tokens through norm1, joint attention per window."""
    size, shift, heads = block.window_size[0], block.shift_size[0], block.attn.num_heads
    b, h, w, c = x.shape
    p = len(prompts)
    tokens = torch.roll(block.norm1(x), (-shift, -shift), (1, 2))
    parts = windows(tokens, size)
    asked = block.norm1(prompts).expand(b, parts.shape[1], p, c)
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(2, 3)
        for part in block.attn.qkv(torch.cat([asked, parts], 2)).chunk(3, -1)
    )
    logits = q @ k.mT / math.sqrt(c // heads)
    table, index = block.attn.relative_position_bias_table, block.attn.relative_position_index
    bias = table[index.flatten()].reshape(size**2, size**2, heads).permute(2, 0, 1)
    logits[..., p:, p:] += bias
    if shift:
        region = torch.zeros(1, h, w, 1).double()
        for i, rows in enumerate((slice(-size), slice(-size, -shift), slice(-shift, None))):
            for j, columns in enumerate((slice(-size), slice(-size, -shift), slice(-shift, None))):
                region[:, rows, columns] = 3 * i + j
        of = windows(region, size)[0, ..., 0]
        apart = of[:, None] != of[:, :, None]
        logits[..., p:, p:] += -100.0 * apart[:, None].double()
    y = (logits.softmax(-1) @ v).transpose(2, 3).flatten(3)
    y = block.attn.proj(y)[:, :, p:]
    y = y.reshape(b, h // size, w // size, size, size, c).transpose(2, 3).reshape(b, h, w, c)
    x = x + torch.roll(y, (shift, shift), (1, 2))
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("name", ["vpt_deep", "vpt_shallow"])
def test_vpt_takes_its_authors_steps(name):
    made = adapted(name, prompts=3)
    path, x = made.paths["b"].eval(), torch.randn(2, 3, 64, 64).double()
    plain = build("swin").double().eval()
    plain.load_state_dict(path.state_dict(), strict=False)
    mine = [m.prompts.weight for m in path.modules() if hasattr(m, "first_norm")]
    theirs = [p.detach().clone().requires_grad_() for p in mine]

    def form() -> list[Tensor]:
        y, found, left = plain.patch_embed(x), [], list(theirs)
        for stage in plain.layers:
            y = stage.downsample(y)
            for block in stage.blocks:
                y = vpt_block(block, y, left.pop(0)) if left else block(y)
            found.append(y.permute(0, 3, 1, 2))
        assert not left
        return found

    def ours() -> list[Tensor]:
        return made(x, tasks=["b"])["b"]

    for got, wanted in zip(ours(), form(), strict=True):
        close(got, wanted)
    targets = [torch.randn_like(f) for f in form()]
    for parameters, features in ((mine, ours), (theirs, form)):
        two_steps(
            parameters,
            lambda features=features: sum(
                (f - t).square().mean() for f, t in zip(features(), targets, strict=True)
            ),
        )
    for got, wanted in zip(mine, theirs, strict=True):
        close(got, wanted)


@pytest.mark.parametrize("patch", [2, 4])
def test_vpts_start_is_bounded_by_patch_and_embedding(patch):
    net = SwinTransformer(
        img_size=16 * patch,
        patch_size=patch,
        window_size=4,
        embed_dim=16,
        depths=(1, 1),
        num_heads=(1, 2),
    )
    made = inject(net, "vpt_deep", tasks=["a"], prompts=60)
    bound = math.sqrt(6 / (3 * patch**2 + 16))
    for _, prompts in made.adapter_parameters():
        assert 0.97 * bound < prompts.abs().max() <= bound


def test_prompts_of_a_plain_vit_pass_the_first_norm():
    made = inject(build("vit"), "vpt_shallow", tasks=["a"], prompts=2)
    (name,) = (n for n, m in made.paths["a"].named_modules() if hasattr(m, "first_norm"))
    block = made.paths["a"].get_submodule(name.rpartition(".")[0])
    seen = []
    block.attn.qkv.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    made(image(1))
    wanted = block.norm1(block.attn.prompts.weight)
    close(seen[0][0, :2], wanted)


def test_swin_v2_normalises_after_attention_so_prompts_enter_as_they_are():
    made = inject(build("swinv2"), "vpt_deep", tasks=["a"], prompts=2)
    found = [m for m in made.paths["a"].modules() if hasattr(m, "first_norm")]
    assert found
    assert all(module.first_norm == () for module in found)


def test_drop_path_drops_vmts_generic_part_and_never_a_tasks_part():
    torch.manual_seed(0)
    net = SwinTransformer(img_size=32, window_size=4, embed_dim=16, depths=(1, 1), num_heads=(1, 2))
    for block in (net.layers[0].blocks[0], net.layers[1].blocks[0]):
        block.drop_path1.drop_prob = block.drop_path2.drop_prob = 0.0
    made = inject(net, "vmt", tasks=["a"])
    perturb(made, [p for _, p in made.adapter_parameters()])
    path, x = made.paths["shared"], image(2, 32)
    for stage in path.layers:
        stage.blocks[0].drop_path2 = DropPath(0.999999)
    site = made.info.find("mlp")[0]
    branch, seen = branch_at(path, site), []
    branch.up.register_forward_hook(lambda module, args, out: seen.append(out))
    made.train()
    features = made(x)["a"][0]
    stream = made.info.stage_outputs(path, x)[0]
    part = branch.specific(seen[0], "a").reshape(features.permute(0, 2, 3, 1).shape)
    close(features, stream + part.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    made.eval()
    alive = made.info.stage_outputs(path, x)[0]
    assert (alive - stream).abs().max() > 1e-3  # the generic part and the MLP were dropped
