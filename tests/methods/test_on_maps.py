"""Convpass and Mona on backbones: where they stand, and that the map's size reaches them."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
import torchvision
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.swin_transformer import SwinTransformer, swin_tiny_patch4_window7_224
from timm.models.vision_transformer import VisionTransformer, vit_base_patch16_224
from torch import nn

from peft_dense import AdaptedBackbone, inject
from peft_dense.backbones import branch_at, examine
from peft_dense.errors import HyperparameterError, NoSiteError, UnsupportedModelError
from peft_dense.methods import method
from zoo import build, perturb

close = torch.testing.assert_close
both_methods = pytest.mark.parametrize("name", ["convpass", "mona"])


def small(family: str) -> nn.Module:
    torch.manual_seed(0)
    if family == "swin":
        return SwinTransformer(
            img_size=32, window_size=4, embed_dim=16, depths=(1, 2), num_heads=(1, 2)
        ).eval()
    if family == "pvtv2":
        return PyramidVisionTransformerV2(
            depths=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), num_heads=(1, 1, 1, 1)
        ).eval()
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=4, num_heads=2, class_token=True
    ).eval()


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is flat")
        yield


def adapt(family: str, name: str, **options) -> AdaptedBackbone:
    model = small(family)
    torch.manual_seed(1)
    adapted = inject(model, name, tasks=["a", "b"], **options)
    perturb(adapted, [p for _, p in adapted.adapter_parameters()], 0.05)
    return adapted


def images(batch: int = 2, size: tuple[int, int] = (32, 64)) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(2))


def results(run, adapted: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Features and gradients of one forward and backward."""
    adapted.zero_grad()
    maps = [f for fs in run(x).values() for f in fs]
    generator = torch.Generator().manual_seed(3)
    sum((f * torch.randn(f.shape, generator=generator)).sum() for f in maps).backward()
    return [f.detach() for f in maps] + [p.grad for _, p in adapted.adapter_parameters()]


@pytest.mark.parametrize(
    ("name", "swin", "vit"), [("convpass", 164_352, 327_552), ("mona", 1_408_128, 2_684_928)]
)
def test_on_both_sites_the_counts_are_the_references(name, swin, vit):
    with torch.device("meta"):
        models = {swin: torchvision.models.swin_t()}
    models[vit] = vit_base_patch16_224()  # timm 1.0.16 can't build models on the meta device
    halved = examine(swin_tiny_patch4_window7_224())
    for expected, model in models.items():
        adapted = inject(model, name, sites="both")
        assert adapted.method.count(adapted.info, 4) == adapted.ledger().encoder == expected
    assert method(name).resolve(halved).count(halved, 4) == swin // 2


@both_methods
@pytest.mark.parametrize("placement", ["parallel", "serial"])
@pytest.mark.parametrize("family", ["swin", "pvtv2", "vit"])
def test_a_branch_is_handed_what_its_site_saw(name, placement, family):
    """What joins a site's output is the branch of its input (or output) on the image's map."""
    adapted = adapt(family, name, placement=placement)
    path, seen = adapted.paths["shared"], {}
    sites = adapted.info.find("mlp")
    for site in sites:
        module = path.get_submodule(site.name)

        def keep(module, args, output, site=site):
            seen[site.name] = (args[0], output)

        module.register_forward_hook(keep, prepend=True)  # before the branch joins
        module.register_forward_hook(
            lambda m, a, output, site=site: seen.update({site.name: (*seen[site.name], output)})
        )
    x = images()
    features = adapted(x)["a"]
    for site in sites:
        grid = tuple(features[site.stage].shape[-2:])
        taken, given, joined = seen[site.name]
        read = taken if placement == "parallel" else given
        close(joined, given + branch_at(path, site)(read, grid))


@both_methods
@pytest.mark.parametrize("family", ["swin", "pvtv2"])
def test_checkpointing_gives_the_plain_gradients(name, family):
    adapted = adapt(family, name)
    plain = results(adapted, adapted, images())
    adapted.set_grad_checkpointing()
    for got, expected in zip(results(adapted, adapted, images()), plain, strict=True):
        close(got, expected, rtol=1e-4, atol=1e-5)


@both_methods
def test_checkpointing_where_only_the_image_tells_the_size_says_what_to_do(name):
    adapted = adapt("vit", name)
    adapted.set_grad_checkpointing()
    with pytest.raises(UnsupportedModelError, match="turn gradient checkpointing off"):
        results(adapted, adapted, images(size=(32, 32)))


@both_methods
@pytest.mark.parametrize("family", ["swin", "pvtv2", "vit"])
def test_a_path_called_by_itself_gives_the_same(name, family):
    adapted = adapt(family, name)
    path, x = adapted.paths["shared"], images(size=(32, 32))
    expected = adapted(x)["a"][-1]
    seen = {}
    last = adapted.info.find("mlp")[-1]
    path.get_submodule(last.name).register_forward_hook(lambda m, a, o: seen.update(x=o))
    adapted(x)
    inside = seen.pop("x")
    path(x)  # the backbone's own forward, classifier and all
    assert torch.equal(seen.pop("x"), inside)
    assert torch.equal(adapted(x)["a"][-1], expected)


@pytest.mark.parametrize(
    ("family", "name"), [("swin", "convpass"), ("pvtv2", "mona"), ("vit", "convpass")]
)
def test_one_compiled_graph_gives_the_eager_results(family, name):
    torch._dynamo.reset()
    adapted = adapt(family, name)
    expected = results(adapted, adapted, images(size=(32, 32)))
    compiled = torch.compile(adapted, fullgraph=True, backend="aot_eager")
    got = results(compiled, adapted, images(size=(32, 32)))
    for one, other in zip(got, expected, strict=True):
        close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("family", "name"), [("swin", "mona"), ("pvtv2", "convpass")])
def test_an_exported_program_takes_any_batch(family, name):
    adapted = adapt(family, name).eval()
    x = images(3, (32, 32))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(adapted, (x,), dynamic_shapes=(batch,)).module()
    for size in (1, 5, 64):
        x = images(size, (32, 32))
        for got, expected in zip(program(x)["b"], adapted(x)["b"], strict=True):
            close(got, expected, rtol=1e-4, atol=1e-5)


@both_methods
def test_threads_with_images_of_different_sizes_dont_meet(name):
    adapted = adapt("pvtv2", name)
    inputs = [images(1, (32, 64)), images(1, (64, 32))]
    with torch.no_grad():
        expected = [adapted(x)["a"][0] for x in inputs]
    same: list[bool] = []

    def work(x, right):
        with torch.no_grad():
            same.extend(torch.equal(adapted(x)["a"][0], right) for _ in range(10))

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(inputs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(same) == 20 and all(same)


@both_methods
def test_sites_without_a_map_are_named_once_and_left_alone(name):
    model = small("swin")
    with pytest.warns(UserWarning, match="at 3 of 6 sites") as caught:
        adapted = inject(model, name, sites="both")
    (warning,) = caught
    assert "layers.1.blocks.1.attn" in str(warning.message)
    assert "mlp" not in str(warning.message)
    assert adapted.ledger().encoder == adapted.method.count(adapted.info, 4)
    assert not any(".attn." in key for key, _ in adapted.adapter_parameters())


@both_methods
def test_where_no_site_has_a_map_the_error_says_what_to_do(name):
    with pytest.raises(NoSiteError, match=r"windows.*layers.0.blocks.0.attn.*sites='mlp'"):
        inject(small("swin"), name, sites="attn")
    with pytest.raises(NoSiteError, match=r"blocks\.0\.mlp.*Instead, use shared_adapter"):
        inject(build("hiera"), name)


@both_methods
def test_hyperparameters_are_checked(name):
    with pytest.raises(HyperparameterError, match="width"):
        method(name, width=0)
    with pytest.raises(HyperparameterError, match="sites is 'norm'"):
        method(name, sites="norm")
    with pytest.raises(HyperparameterError, match="placement is 'above'"):
        method(name, placement="above")
    with pytest.raises(HyperparameterError, match="placement='serial'"):
        inject(build("mvitv2"), name, sites="both", placement="parallel")
