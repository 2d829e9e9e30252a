"""2,000 mutations of saved folders: each loads what lies there, or is refused with our error.

Half are *blind*: bytes, files and links changed as an accident would. Half are *sealed*: whoever
changed them made the digests right again, so that every later check is on its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from peft_dense import AdaptedBackbone, DenseModel, inject
from peft_dense.errors import CheckpointError
from peft_dense.keeping.files import CONFIG, TENSORS, sign
from peft_dense.keeping.tensors import LIMIT
from zoo import perturb

TASKS = {"a.b": 3, "../keys": 1}
ROUNDS, EACH = 10, 50  # times blind and sealed, encoder and dense: 2,000
MOST = 256 << 20  # bytes that the process may grow by; a JSON of the limit's size takes most


class Pyramid(nn.Module):
    """Two stages of convolutions and batch normalisation: probed in a few milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 12, 4, 4), nn.BatchNorm2d(12)
        self.fine, self.coarse = nn.Module(), nn.Module()
        self.fine.mlp, self.coarse.mlp = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        fine = self.fine.mlp(self.norm(self.stem(x)))
        return [fine, self.coarse.mlp(nn.functional.avg_pool2d(fine, 2))]


Model = AdaptedBackbone | DenseModel


def make(kind: str) -> Model:
    torch.manual_seed(1)
    adapted = inject(Pyramid().eval(), "vmt_lite", tasks=list(TASKS), ratio=3)
    model = adapted if kind == "encoder" else DenseModel(adapted, TASKS, width=4, dropout=0.1)
    perturb(model, [p for p in model.parameters() if p.requires_grad])
    return model


def state_of(model: Model) -> dict[str, torch.Tensor]:
    encoder = isinstance(model, AdaptedBackbone)
    return model.adapter_state_dict() if encoder else model.trainable_state_dict()


@functools.cache
def saved(kind: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        make(kind).save(folder)
        return {name: (Path(folder) / name).read_bytes() for name in (CONFIG, TENSORS)}


# ------------------------------------------------------------------------------ blind mutations


def truncate(rng: random.Random, folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: rng.randrange(len(whole))])


def extend(rng: random.Random, folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(rng.choice([b"\0", b" ", b"}", rng.randbytes(1000)]))


def flip(rng: random.Random, folder: Path, name: str) -> None:
    whole = bytearray((folder / name).read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    (folder / name).write_bytes(whole)


def overwrite(rng: random.Random, folder: Path, name: str) -> None:
    whole = bytearray((folder / name).read_bytes())
    start, length = rng.randrange(len(whole)), rng.randrange(1, 200)
    with_what = rng.choice([bytes(length), rng.randbytes(length), whole[:length]])
    whole[start : start + length] = with_what
    (folder / name).write_bytes(whole)


def replace_whole(rng: random.Random, folder: Path, name: str) -> None:
    nested = b"[" * 100_000
    bomb = b"[" + b"[]," * (LIMIT // 3 - 2) + b"[]]"
    (folder / name).write_bytes(
        rng.choice(
            [
                b"",
                b"\0" * 1000,
                rng.randbytes(1000),
                nested,
                struct.pack("<Q", len(nested)) + nested,
                bomb,
                struct.pack("<Q", len(bomb)) + bomb,
                b'{"format": 4, "a": ' + bomb[: LIMIT - 100] + b"]]}",
                b'{"format": ' + b"9" * 5000 + b"}",
                b"\xef\xbb\xbf" + (folder / name).read_bytes(),
                b"{}",
                b"null",
            ]
        )
    )


def other_kind_of_file(rng: random.Random, folder: Path, name: str) -> None:
    path, aside = folder / name, folder / "aside"
    path.rename(aside)
    choice = rng.randrange(8)
    if choice == 0:
        path.mkdir()
    elif choice == 1:
        path.symlink_to(aside)  # this one loads
    elif choice == 2:
        path.symlink_to(path)
    elif choice == 3:
        path.symlink_to(folder / ".." / "nowhere")
    elif choice == 4:
        path.symlink_to("/dev/zero")
    elif choice == 5:
        path.symlink_to(folder)
    elif choice == 6:
        os.mkfifo(path)
    # else it isn't there


def swap(rng: random.Random, folder: Path, name: str) -> None:
    one, two = (folder / name).read_bytes(), (folder / other(name)).read_bytes()
    (folder / name).write_bytes(two)
    if rng.random() < 0.5:
        (folder / other(name)).write_bytes(one)


def of_another_save(rng: random.Random, folder: Path, name: str) -> None:
    kind = rng.choice(["encoder", "dense"])
    content = saved(kind)[name]
    (folder / name).write_bytes(content.replace(b"mark", b"kram", rng.randrange(2)))


def header_length(rng: random.Random, folder: Path, name: str) -> None:
    whole = (folder / TENSORS).read_bytes()
    length = rng.choice([0, 1, 7, len(whole), 1 << 31, 1 << 63, (1 << 64) - 1, rng.getrandbits(64)])
    (folder / TENSORS).write_bytes(struct.pack("<Q", length) + whole[8:])


def edit_blindly(rng: random.Random, folder: Path, name: str) -> None:
    edit_config(rng, folder)


BLIND: list[Callable[[random.Random, Path, str], None]] = [
    truncate,
    extend,
    flip,
    flip,
    overwrite,
    replace_whole,
    other_kind_of_file,
    swap,
    of_another_save,
    header_length,
    edit_blindly,
]


def other(name: str) -> str:
    return TENSORS if name == CONFIG else CONFIG


# ------------------------------------------------------------------------------ sealed mutations

ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    4,
    6,
    5_000,
    1 << 31,
    (1 << 53) - 1,
    1 << 53,
    1 << 63,
    10**30,
    0.0,
    -0.5,
    0.9,
    1e308,
    5e-324,
    "",
    "..",
    "../../etc/passwd",
    "/dev/zero",
    "\0",
    "\ud800",
    "lora",
    "hrnet",
    "float16",
    "x" * 10_000,
    [],
    [[]],
    ["..", 3],
    [1 << 40] * 100,
    {},
    {"..": None},
    {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}}},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything inside a configuration."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, key))


def edit_config(rng: random.Random, folder: Path) -> None:
    """Change, remove, rename, repeat or add something anywhere in the JSON."""
    config = json.loads((folder / CONFIG).read_text())
    *way, last = rng.choice(list(places(config)))
    inside = functools.reduce(lambda value, key: value[key], way, config)
    what = rng.choice(["change"] * 6 + ["remove", "rename", "repeat", "add"])
    if what == "change":
        inside[last] = rng.choice(ODD)
    elif what == "remove":
        del inside[last]
    elif isinstance(inside, list):
        inside.append(inside[last] if what == "repeat" else rng.choice(ODD))
    elif what == "rename":
        inside[rng.choice(["..", "", "self", "name", "x"])] = inside.pop(last)
    else:
        inside[rng.choice(["..", "width", "m", "heads"])] = rng.choice(ODD)
    (folder / CONFIG).write_text(json.dumps(config))


def edit_known_places(rng: random.Random, folder: Path) -> None:
    """Change what construction depends on, which a choice among all shapes would seldom reach."""
    config = json.loads((folder / CONFIG).read_text())
    parts = [config["hyperparameters"], config["backbone"]["weights"], config]
    parts += [config["heads"]["options"], config["heads"]["channels"]] if "heads" in config else []
    inside = rng.choice(parts)
    inside[rng.choice(sorted(inside))] = rng.choice(ODD)
    (folder / CONFIG).write_text(json.dumps(config))


def rename_task(rng: random.Random, folder: Path) -> None:
    """Name a task otherwise, everywhere: in the JSON, and in the tensors or not."""
    old, new = "../keys", rng.choice(["..", "/etc", "a.b", "é\0", "training", "%2E"])
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text.replace(json.dumps(old), json.dumps(new)))
    if rng.random() < 0.5:
        tensors = load((folder / TENSORS).read_bytes())
        renamed = {n.replace("%2E%2E/keys", new.replace(".", "%2E")): t for n, t in tensors.items()}
        write_tensors(folder, renamed)


def mark_of(folder: Path) -> str:
    return json.loads((folder / CONFIG).read_text())["mark"]


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    (folder / TENSORS).write_bytes(save(tensors, metadata={"mark": mark_of(folder)}))


def edit_tensors(rng: random.Random, folder: Path) -> None:
    """Give a tensor another type, shape, name or values, or take or add one."""
    tensors = load((folder / TENSORS).read_bytes())
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    what = rng.choice(["type"] * 3 + ["shape", "values", "broken", "lose", "add", "rename"])
    if what == "type":
        types = (torch.int8, torch.bool, torch.float16, torch.float64, torch.int64, torch.complex64)
        tensors[name] = tensor.to(rng.choice(types))
    elif what == "shape":
        tensors[name] = rng.choice([tensor.flatten(), tensor[None], tensor.new_zeros(0)])
    elif what == "values":
        tensors[name] = tensor + 1
    elif what == "broken" and tensor.is_floating_point():
        tensors[name] = torch.full_like(tensor, rng.choice([float("nan"), float("inf"), -0.0]))
    elif what == "rename":
        tensors[rng.choice(["..", "", "norms.x", "heads.y", "backbone.stem.weight"])] = tensor
        del tensors[name]
    elif what == "lose":
        del tensors[name]
    else:
        tensors[rng.choice(["../x", "encoder.x", "x" * 10_000])] = torch.zeros(2)
    write_tensors(folder, {name: tensor.contiguous() for name, tensor in tensors.items()})


def edit_header(rng: random.Random, folder: Path) -> None:
    """Let the header lie: of offsets, shapes and types, or name a tensor twice."""
    whole = (folder / TENSORS).read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header, values = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    what = rng.randrange(8)
    if what == 0:
        entry["data_offsets"][rng.randrange(2)] = rng.choice([-1, 0, 1 << 40, 1 << 64, 1.5, None])
    elif what == 1:
        entry["data_offsets"] = header[rng.choice([n for n in header if n != "__metadata__"])][
            "data_offsets"
        ]
    elif what == 2:
        entry["shape"] = rng.choice([[1 << 40, 1 << 40], [-1], [0], [1] * 1000, 3, ["a"], [1e3]])
    elif what == 3:
        entry["dtype"] = rng.choice(["I32", "U8", "F4", "", None, ["F32"]])
    elif what == 4:
        header["__metadata__"] = rng.choice([{}, 3, {"mark": 3}, {"mark": None}, []])
    elif what == 5:
        values = rng.choice([values[:-4], values + bytes(4), b"", values + bytes(1 << 20)])
    elif what == 6:
        header[name] = rng.choice(ODD)
    text = json.dumps(header).encode()
    if what == 7:
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(entry)}}}".encode()
    (folder / TENSORS).write_bytes(struct.pack("<Q", len(text)) + text + values)


SEALED: list[Callable[[random.Random, Path], None]] = [
    edit_config,
    edit_known_places,
    edit_known_places,
    rename_task,
    edit_tensors,
    edit_tensors,
    edit_header,
]


def seal(folder: Path) -> None:
    """Make every digest right again, where there is a configuration to write it into."""
    config = json.loads((folder / CONFIG).read_text())
    if isinstance(config, dict):
        config["tensors"] = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
        config["digest"] = sign(config)
        (folder / CONFIG).write_text(json.dumps(config))


# ------------------------------------------------------------------------------ the law


def memory(which: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) << 10


def attempt(kind: str, folder: Path, backbone: nn.Module) -> Model | None:
    """Load a folder, or None where it is refused; any other error is the test's failure."""
    reason = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return (AdaptedBackbone if kind == "encoder" else DenseModel).load(folder, backbone)
        except CheckpointError as error:
            reason = str(error)
    assert 20 < len(reason) < 3000  # to be read
    return None


def holds(model: Model, tensors: bytes) -> bool:
    """Whether a model has the very values of a file, in its own type."""
    expected, own = load(tensors), state_of(model)
    return own.keys() == expected.keys() and all(
        torch.equal(expected[name].to(value.dtype).nan_to_num(), value.nan_to_num())
        for name, value in own.items()
    )


def is_described(model: Model, config: dict[str, Any]) -> bool:
    """Whether a model is what a configuration says."""
    encoder = model if isinstance(model, AdaptedBackbone) else model.encoder
    own = json.loads(json.dumps(encoder.config()))
    hyperparameters = {key: own["hyperparameters"][key] for key in config["hyperparameters"]}
    return (
        hyperparameters == config["hyperparameters"]
        and own["tasks"] == config["tasks"]
        and own["method"] == config["method"]
        and (
            isinstance(model, AdaptedBackbone) or model.out_channels == config["heads"]["channels"]
        )
    )


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("sealed", [False, True], ids=["blind", "sealed"])
@pytest.mark.parametrize("kind", ["encoder", "dense"])
def test_mutations(kind, sealed, round_, tmp_path):
    rng = random.Random(f"{kind} {sealed} {round_}")
    backbone = Pyramid().eval()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    original = {
        name: json.loads(saved(kind)[CONFIG])[name] for name in ("hyperparameters", "tasks")
    }
    watched = Path("/proc/self/clear_refs").exists()
    grown_from = memory("VmRSS") if watched else 0
    loaded = 0
    for _ in range(EACH):
        folder = tmp_path / "folder"
        folder.mkdir()
        for name, content in saved(kind).items():
            (folder / name).write_bytes(content)
        if watched:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
        if sealed:
            change = rng.choice(SEALED)
            change(rng, folder)
            seal(folder)
        else:
            rng.choice(BLIND)(rng, folder, rng.choice([CONFIG, TENSORS]))
        model = attempt(kind, folder, backbone)
        if model is not None:
            loaded += 1
            config = json.loads((folder / CONFIG).read_bytes())
            assert holds(model, (folder / TENSORS).read_bytes())
            assert is_described(model, config)
            if not sealed:
                assert holds(model, saved(kind)[TENSORS])
                assert {name: config[name] for name in original} == original
        if watched:
            assert memory("VmHWM") - grown_from < MOST
        shutil.rmtree(folder)
    after = backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.requires_grad and p.grad is None for p in backbone.parameters())
    assert not backbone.training and not backbone._forward_hooks
    assert loaded < EACH  # the mutations mutate


@pytest.mark.parametrize("kind", ["encoder", "dense"])
def test_an_unchanged_folder_loads(kind, tmp_path):
    """Else the law would hold of a loader that refuses everything."""
    for name, content in saved(kind).items():
        (tmp_path / name).write_bytes(content)
    seal(tmp_path)
    model = attempt(kind, tmp_path, Pyramid().eval())
    assert model is not None and holds(model, saved(kind)[TENSORS])
