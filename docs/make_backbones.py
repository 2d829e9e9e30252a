"""Write docs/backbones.md: which methods work on which backbone, tried one by one.

    python docs/make_backbones.py [NAME ...]

Every model is built at random weights, at its own size; nothing is downloaded. A method works where
inject takes it, one image runs, and the stages are at the start what the backbone gives. With names
only those models are tried and the rows are printed instead. A library that isn't installed is left
out, and said so. It takes some minutes.
"""

from __future__ import annotations

import datetime
import gc
import importlib
import importlib.metadata
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from peft_dense import AdaptedBackbone, inject
from peft_dense.backbones import BackboneInfo
from peft_dense.errors import PeftDenseError
from peft_dense.methods import method

PAGE = Path(__file__).parent / "backbones.md"
METHODS = ("vmt_lite", "shared_lora", "adapter", "polyhistor_lite", "bitfit", "ssf")

TIMM = (
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "pvt_v2_b0",
    "mvitv2_tiny",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "twins_svt_small",
    "twins_pcpvt_small",
    "davit_tiny",
    "maxvit_tiny_tf_224",
    "coatnet_0_rw_224",
    "convnext_tiny",
    "convnextv2_atto",
    "edgenext_xx_small",
    "focalnet_tiny_srf",
    "caformer_s18",
    "convformer_s18",
    "poolformerv2_s12",
    "fastvit_t8",
    "repvit_m0_9",
    "xcit_nano_12_p16_224",
    "gcvit_xxtiny",
    "cait_xxs24_224",
    "beit_base_patch16_224",
    "eva02_tiny_patch14_224",
    "vit_tiny_patch16_224",
    "vit_small_patch14_dinov2",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "tiny_vit_5m_224",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "convit_tiny",
    "crossvit_tiny_240",
    "efficientvit_m0",
    "efficientvit_b0",
    "levit_128",
    "shvit_s1",
    "mobilevit_xxs",
    "mobilevitv2_050",
    "nextvit_small",
    "nest_tiny",
    "coat_tiny",
    "visformer_tiny",
    "volo_d1_224",
    "pit_ti_224",
    "swiftformer_xs",
    "inception_next_atto",
    "mixer_s32_224",
    "resmlp_12_224",
    "samvit_base_patch16",
    "mobilenetv4_hybrid_medium",
    "resnet50",
)
TORCHVISION = ("swin_t", "swin_v2_t", "convnext_tiny", "maxvit_t", "resnet50")
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "SwinBackbone": {},
    "Swinv2Backbone": {},
    "HieraBackbone": {},
    "Dinov2Backbone": {},
    "PvtV2Backbone": {},
    "BeitBackbone": {},
    "ConvNextBackbone": {
        "hidden_sizes": [96, 192, 384, 768],
        "depths": [3, 3, 9, 3],
    },
    "SegformerModel": {},
    "SwinModel": {},
}
SEGMENTATION = ("mit_b0", "resnet18", "tu-swin_tiny_patch4_window7_224")

INTRO = """\
<!-- Made by `python docs/make_backbones.py`. -->

# Backbones

Which methods work on which backbone. Each pair was tried with random weights.

- *strides*: of the stages; *flat*: all stages have the same stride, as in a plain ViT.
- *ms*: processor time of `inject(model, "decoders_only")`, the smaller of two runs, in
  milliseconds. What a method adds takes time on top.
- *works*: `inject` accepts the backbone, a forward pass runs, and before training the features
  equal the backbone's.
- *no mlp*, *no qkv*: the backbone has no MLP, or no attention with query, key and value
  projections, that was recognised.
- *off the map*: the backbone has MLPs, but none has the shape of its stage's output.
  *Works (7 of 20)*: seven of its twenty MLPs have, and only those give the tasks parts of their
  own.
"""


def models() -> dict[str, tuple[str, Callable[[], nn.Module]]]:
    """Give library and constructor of every model, by its name."""
    found: dict[str, tuple[str, Callable[[], nn.Module]]] = {}
    for name in TIMM:
        found[name] = ("timm", lambda name=name: timm.create_model(name))
    name = "swin_tiny_patch4_window7_224"
    found[f"{name}, features_only"] = ("timm", lambda: timm.create_model(name, features_only=True))
    for name_ in TORCHVISION:
        found[f"torchvision {name_}"] = (
            "torchvision",
            lambda name_=name_: getattr(torchvision.models, name_)(),
        )
    for name_, options in TRANSFORMERS.items():
        found[name_] = (
            "transformers",
            lambda name_=name_, options=options: transformers_model(name_, options),
        )
    for name_ in SEGMENTATION:
        found[f"smp {name_}"] = (
            "segmentation_models_pytorch",
            lambda name_=name_: importlib.import_module(
                "segmentation_models_pytorch"
            ).encoders.get_encoder(name_, weights=None),
        )
    return found


def transformers_model(name: str, options: dict[str, Any]) -> nn.Module:
    """Build one of transformers' models from its configuration."""
    transformers = importlib.import_module("transformers")
    transformers.logging.set_verbosity_error()
    kind = name.removesuffix("Backbone").removesuffix("Model")
    model: nn.Module = getattr(transformers, name)(
        getattr(transformers, f"{kind}Config")(**options)
    )
    return model


def row(name: str, build: Callable[[], nn.Module]) -> list[str]:
    """Try all methods on one model."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = build().eval()
    took = []
    for _ in range(2):
        began = time.process_time()
        try:
            backbone = inject(model, "decoders_only", tasks=["a"])
        except PeftDenseError as error:
            return [name, "-", reason(error), *[""] * len(METHODS)]
        took.append((time.process_time() - began) * 1000)
    info = backbone.info
    strides = "flat, " if info.flat and len(info.channels) > 1 else ""
    strides += ", ".join(map(str, dict.fromkeys(info.reductions)))
    image = torch.randn(1, info.in_channels, *size_for(info))
    with torch.no_grad():
        plain = backbone(image)["a"]
        cells = [tried(model, info, chosen, image, plain) for chosen in METHODS]
    return [name, strides, f"{min(took):.0f}", *cells]


def size_for(info: BackboneInfo) -> tuple[int, int]:
    """Give the smallest square of 128 or more that the model takes, or its own size."""
    if info.multiple is None or info.multiple > 128:
        return info.probed_size
    side = -(-128 // info.multiple) * info.multiple
    return side, side


def tried(
    model: nn.Module, info: BackboneInfo, name: str, image: torch.Tensor, plain: list[torch.Tensor]
) -> str:
    """Say whether a method works on a model, or why not."""
    try:
        chosen = method(name).resolve(info)
        found = AdaptedBackbone(model, chosen, ["a"], info)(image)["a"]
    except PeftDenseError as error:
        return reason(error)
    except Exception as error:
        return f"**{type(error).__name__}**"
    for a, b in zip(found, plain, strict=True):
        if a.shape != b.shape or not torch.allclose(a, b, rtol=1e-3, atol=1e-3):
            return "**differs at the start**"
    mlps = [site for site in info.sites if site.kind == "mlp"]
    fitting = sum(map(info.fits, mlps))
    part = name == "vmt_lite" and fitting < len(mlps)
    return f"works ({fitting} of {len(mlps)})" if part else "works"


def reason(error: PeftDenseError) -> str:
    """Say in a few words why a method has no place."""
    words = str(error)
    for kind in ("mlp", "attn", "qkv", "proj", "fc1", "fc2"):
        if words.startswith(f"no {kind!r} "):
            return f"no {kind}"
    if "works on its stage's map" in words:
        return "off the map"
    if "doesn't divide" in words:
        return "widths"
    if "stage outputs can't be reached" in words:
        return "no stage outputs"
    return words.partition(".")[0][:60]


def table(rows: list[list[str]]) -> list[str]:
    """Lay out rows as Markdown."""
    head = ["model", "strides", "ms", *(f"`{name}`" for name in METHODS)]
    align = ["---", "---", "--:", *["---"] * len(METHODS)]
    return [f"| {' | '.join(cells)} |" for cells in (head, align, *rows)]


def page(names: list[str]) -> str:
    """Try the models and write the page as a string."""
    warnings.simplefilter("ignore")
    libraries: dict[str, list[list[str]]] = {}
    absent: set[str] = set()
    for name, (library, build) in models().items():
        if names and name not in names:
            continue
        try:
            importlib.import_module(library)
        except ImportError:
            absent.add(library)
            continue
        cells = row(name, build)
        sys.stderr.write(f"{' | '.join(cells)}\n")
        libraries.setdefault(library, []).append(cells)
        gc.collect()
    versions = ", ".join(
        f"{library} {importlib.metadata.version(library.replace('_', '-'))}"
        for library in ("torch", *libraries)
    )
    every = [cells for rows in libraries.values() for cells in rows]
    counts = [
        f"`{name}` works on {sum(cells[3 + place].startswith('works') for cells in every)}"
        for place, name in enumerate(METHODS)
    ]
    lines = [
        INTRO,
        f"Made on {datetime.date.today():%d %B %Y} with {versions}.",
        f"Of {len(every)} models, {', '.join(counts)}.",
    ]
    for library, rows in libraries.items():
        lines += ["", f"## {library}", "", *table(rows)]
    if absent:
        lines += ["", f"Not installed, so not tried: {', '.join(sorted(absent))}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write(page(sys.argv[1:]))
    else:
        PAGE.write_text(page([]), encoding="utf-8")
