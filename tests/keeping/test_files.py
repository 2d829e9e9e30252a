"""Two files are written whole or not at all, and what was done to them since is found."""

from __future__ import annotations

import copy
import errno
import json
import os
import stat
import struct
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from peft_dense.errors import CheckpointError
from peft_dense.keeping import files
from peft_dense.keeping.digest import fingerprint, weights_id
from peft_dense.keeping.files import CONFIG, TENSORS, read, sign, write
from peft_dense.keeping.tensors import LIMIT

VALUES = {
    "a.weight": torch.arange(6.0).view(2, 3),
    "a.half": torch.ones(3, dtype=torch.bfloat16),
    "double": torch.tensor(0.1, dtype=torch.float64),
    "steps": torch.tensor([7, -1]),
    "small": torch.tensor([-3], dtype=torch.int8),
    "mask": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 4),
    "wave": torch.tensor([1 + 2j], dtype=torch.complex64),
}


def config(**changes) -> dict:
    return {
        "method": "lora",
        "hyperparameters": {"rank": 4, "alpha": 0.1, "targets": ["qkv"], "norm": None},
        "tasks": ["a", "../b"],
        "backbone": {
            "class": "Net",
            "parameters": {"w": [2, 3], "scale": []},
            "weights": weights_id({"w": torch.ones(2, 3)}),
        },
        **changes,
    }


def heads(**changes) -> dict:
    own = {"names": {"a": "hrnet", "../b": None}, "options": {"width": 8}}
    return {**own, "channels": {"a": 1, "../b": 3}, **changes}


def forge(folder: Path, changed: dict) -> None:
    """Write a configuration with the digest it would have had."""
    whole = json.loads((folder / CONFIG).read_text()) | changed
    (folder / CONFIG).write_text(json.dumps({**whole, "digest": sign(whole)}))


def equal(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left
    )


# ------------------------------------------------------------------------------ and back


def test_what_was_written_is_read(tmp_path):
    given = config(heads=heads())
    assert write(tmp_path / "deep" / "er", VALUES, given) == tmp_path / "deep" / "er"
    saved = read(str(tmp_path / "deep" / "er"))
    assert saved.config == json.loads(json.dumps(given))
    assert saved.specs == {name: (t.dtype, tuple(t.shape)) for name, t in VALUES.items()}
    assert equal(saved.tensors(), VALUES)


def test_the_tensors_are_a_safetensors_file(tmp_path):
    assert equal(load_file(write(tmp_path, VALUES, config()) / TENSORS), VALUES)


def test_every_tensor_begins_at_a_multiple_of_its_item(tmp_path):
    """As the layout asks, for readers that map the file."""
    whole = (write(tmp_path, VALUES, config()) / TENSORS).read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    entries = json.loads(whole[8 : 8 + length])
    assert length % 8 == 0
    for name, tensor in VALUES.items():
        assert entries[name]["data_offsets"][0] % tensor.element_size() == 0


def test_how_values_lie_does_not_matter(tmp_path):
    lying = {
        "turned": torch.arange(6.0).view(2, 3).t(),
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conjugate": torch.tensor([1 + 2j]).conj(),
        "part": torch.arange(9.0)[3:5],
        "asks": torch.nn.Parameter(torch.ones(2)),
    }
    back = read(write(tmp_path, lying, config())).tensors()
    assert all(torch.equal(back[name], value) for name, value in lying.items())


def test_a_configuration_in_other_words_is_the_same(tmp_path):
    """Spaces and the order of fields carry nothing, and some tools change them."""
    write(tmp_path, VALUES, config())
    given = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(dict(reversed(given.items()))))
    assert read(tmp_path).config == config()


def test_values_read_are_no_views_of_the_file(tmp_path):
    write(tmp_path, VALUES, config())
    back = read(tmp_path).tensors()
    (tmp_path / TENSORS).write_bytes(b"")
    assert equal(back, VALUES)


def test_reading_follows_links(tmp_path):
    write(tmp_path / "real", VALUES, config())
    (tmp_path / "files").mkdir()
    for name in (CONFIG, TENSORS):
        (tmp_path / "files" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    for folder in ("files", "folder"):
        assert equal(read(tmp_path / folder).tensors(), VALUES)


# ------------------------------------------------------------------------------ changed since


def test_every_changed_byte_of_the_tensors_is_found(tmp_path):
    write(tmp_path, VALUES, config())
    whole = (tmp_path / TENSORS).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / TENSORS).write_bytes(changed)
        with pytest.raises(CheckpointError):
            read(tmp_path).tensors()


def test_every_changed_byte_of_the_configuration_is_found(tmp_path):
    write(tmp_path, VALUES, config())
    whole = (tmp_path / CONFIG).read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 4
        (tmp_path / CONFIG).write_bytes(changed)
        with pytest.raises(CheckpointError):
            read(tmp_path)


def test_an_edit_is_called_an_edit(tmp_path):
    write(tmp_path, VALUES, config())
    text = (tmp_path / CONFIG).read_text()
    (tmp_path / CONFIG).write_text(text.replace('"alpha": 0.1', '"alpha": 0.9'))
    with pytest.raises(CheckpointError, match=f"{CONFIG} was edited or damaged after it was saved"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (99, "format 99; this version reads up to 4. Update peft-dense"),
        (5, "format 5; this version reads up to 4. Update peft-dense"),
        (1, "format 1, from before the first release"),
        pytest.param(10**4000, "Update peft-dense", id="huge"),
    ],
)
def test_another_format(number, words, tmp_path):
    write(tmp_path, VALUES, config())
    for digest in (True, False):
        whole = json.loads((tmp_path / CONFIG).read_text()) | {"format": number}
        whole |= {"digest": sign(whole)} if digest else {"new": "field"}
        (tmp_path / CONFIG).write_text(json.dumps(whole))
        with pytest.raises(CheckpointError, match=words):
            read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b'{"format": 4, "format": 4}',
        b'{"format": NaN}',
        b'{"format": true}',
        b'{"format": 4.0}',
        b'{"format": 1' + b"0" * 5000 + b"}",
        b"[" * 100_000,
        b'{"format": 4, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b" " * (LIMIT + 1),
        b"\xff\xfe\xfa",
        b'"\\ud800"',
    ],
)
def test_no_json_of_ours(text, tmp_path):
    write(tmp_path, VALUES, config())
    (tmp_path / CONFIG).write_bytes(text)
    with pytest.raises(CheckpointError, match=f"{CONFIG} is damaged"):
        read(tmp_path)


FIELDS = [
    ("method", 3, "method is 3; expected a name"),
    ("hyperparameters", [], r"hyperparameters is \[\]; expected numbers, strings, or lists"),
    ("hyperparameters", {"a": 1 << 60}, "hyperparameters is"),
    ("hyperparameters", {"a": [[[[[[[[[[1]]]]]]]]]]}, "hyperparameters is"),
    ("tasks", "ab", "tasks is 'ab'; expected 1 to 1000 names, each once"),
    ("tasks", [], "tasks is"),
    ("tasks", ["a", "a"], "tasks is"),
    ("tasks", ["a", ""], "tasks is"),
    ("tasks", ["a", 3], "tasks is"),
    ("tasks", ["a", ["b"]], "tasks is"),
    ("tasks", [str(n) for n in range(1001)], "tasks is"),
    ("backbone", 3, "backbone is 3; expected an object"),
    ("backbone.class", None, "backbone.class is None; expected a name"),
    ("backbone.parameters", {"w": 3}, "backbone.parameters is {'w': 3}; expected shapes by name"),
    ("backbone.parameters", {"w": [-1]}, "backbone.parameters is"),
    ("backbone.parameters", {"w": [True]}, "backbone.parameters is"),
    ("backbone.weights", "crc", "backbone.weights is 'crc'; expected an object"),
    ("backbone.weights.digest", "00", "backbone.weights.digest is '00'; expected a fingerprint"),
    ("backbone.weights.dtypes", 3, "backbone.weights.dtypes is 3"),
    ("backbone.weights.rounded", {"float16": None}, "backbone.weights.rounded is"),
    ("backbone.weights.fits", [0], "backbone.weights.fits is"),
    ("backbone.weights.sketch", {"w": [1.0]}, "backbone.weights.sketch is"),
    ("further", [[[[[[[[[[1]]]]]]]]]], "further is"),
    ("heads", None, "heads is None; expected an object"),
    ("heads.names", {"a": 3, "../b": None}, "heads.names is"),
    ("heads.names", {"a": "hrnet"}, r"heads.names is \{'a': 'hrnet'\}; expected an entry per task"),
    ("heads.options", {"a": {"b": 1 << 60}}, "heads.options is"),
    ("heads.channels", {"a": 0, "../b": 1}, "heads.channels is .*; expected whole numbers from 1"),
    ("heads.channels", {"a": 1, "b": 1}, "heads.channels is .*; expected an entry per task"),
]


@pytest.mark.parametrize(("field", "value", "words"), FIELDS)
def test_a_field_of_another_kind(field, value, words, tmp_path):
    """Also with the right digest, and neither read nor written."""
    whole = copy.deepcopy(config(heads=heads()))
    write(tmp_path / "old", VALUES, whole)
    *above, last = field.split(".")
    place = whole
    for name in above:
        place = place[name]
    place[last] = value
    forge(tmp_path / "old", whole)
    with pytest.raises(CheckpointError, match=words):
        read(tmp_path / "old")
    with pytest.raises(CheckpointError, match=words):
        write(tmp_path / "new", VALUES, whole)
    assert not (tmp_path / "new").exists()
    del place[last]
    forge(tmp_path / "old", dict.fromkeys(config(heads={}), None) | whole)
    if field not in ("heads", "further"):
        with pytest.raises(CheckpointError, match=f"{field} is "):
            read(tmp_path / "old")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1: 2}, torch.ones(1), {3}, b"a", [10**5000]]
)
def test_what_json_does_not_give_back_is_not_written(value, tmp_path):
    with pytest.raises(CheckpointError, match="hyperparameters is .*; expected numbers, strings"):
        write(tmp_path / "new", VALUES, config(hyperparameters={"a": value}))
    with pytest.raises(CheckpointError, match="further is .*; expected numbers, strings"):
        write(tmp_path / "new", VALUES, config(further=value))
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------ headers


def entry(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def header(text: str | bytes, values: bytes = bytes(8), length: int | None = None) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + values


HEADERS = [
    b"",
    b"\0" * 7,
    header("{}"),
    header("{}", b"", length=3),
    header("{}", length=1 << 63),
    header("{}", length=(1 << 64) - 1),
    header(b" " * (LIMIT + 1)),
    header("[]"),
    header("[" * 100_000),
    *(
        header(json.dumps({"a": entry()}).replace('"F32"', "[" * deep + "]" * deep))
        for deep in (50, 300, 600, 800, 850, 900, 920, 940, 960, 980)
    ),
    header(b"\xff"),
    header('{"a": 3}'),
    header(json.dumps({"a": entry()}), bytes(7)),
    header(json.dumps({"a": entry()}), bytes(9)),
    header(json.dumps({"a": entry(dtype="F31")})),
    header(json.dumps({"a": entry(dtype=3)})),
    header(json.dumps({"a": entry(shape=(3,))})),
    header(json.dumps({"a": entry(shape=(-2,))})),
    header(json.dumps({"a": entry(shape=(2.0,))})),
    header(json.dumps({"a": entry(shape=(True, 2))})),
    header(json.dumps({"a": entry(shape=(1 << 62, 1 << 62))})),
    header(json.dumps({"a": entry(shape=(1,) * 65 + (2,))})),
    header(json.dumps({"a": entry(offsets=(0, 8, 8))})),
    header(json.dumps({"a": entry(offsets=(8, 0))})),
    header(json.dumps({"a": entry(offsets=(-8, 0))})),
    header(json.dumps({"a": entry(offsets=(0, 1 << 70))})),
    header(json.dumps({"a": entry(), "b": entry()})),
    header(json.dumps({"a": entry(), "b": entry(offsets=(4, 12))}), bytes(12)),
    header(json.dumps({"a": entry(offsets=(4, 12))}), bytes(12)),
    header(json.dumps({"a": entry(), "b": entry(offsets=(12, 20))}), bytes(20)),
    header(f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'),
    header(json.dumps({"a": {**entry(), "more": 1}})),
    header(json.dumps({"__metadata__": 3, "a": entry()}), bytes(9)),
]


@pytest.mark.parametrize("content", HEADERS, ids=range(len(HEADERS)))
def test_a_header_that_lies(content, tmp_path):
    write(tmp_path, VALUES, config())
    (tmp_path / TENSORS).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{TENSORS} is damaged"):
        read(tmp_path)


def test_a_long_header_is_not_even_read(tmp_path):
    write(tmp_path, VALUES, config())
    with (tmp_path / TENSORS).open("wb") as file:
        file.write(struct.pack("<Q", 1 << 33))
        file.truncate(1 << 34)  # takes no room on the disk, and would take all memory
    with pytest.raises(CheckpointError, match=f"a header of {1 << 33} bytes; at most"):
        read(tmp_path)


def test_bytes_that_are_no_truth(tmp_path):
    """A boolean of 2 is undefined behaviour further on."""
    write(tmp_path, {"mask": torch.tensor([True])}, config())
    whole = (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(whole[:-1] + b"\2")
    with pytest.raises(CheckpointError, match="mask holds bytes that are neither true nor false"):
        read(tmp_path).tensors()


# ------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_both_files_follow_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write(tmp_path, VALUES, config())
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in (CONFIG, TENSORS)}
    assert modes == {0o666 & ~mask}


def fail_from(first: int, last: int | None = None):
    """Make an os.replace that fails at some of its calls."""
    calls = []

    def replace(source, target):
        calls.append(target)
        if first <= len(calls) <= (last or first):
            raise OSError(errno.ENOSPC, "no space left")
        os.rename(source, target)

    return replace


OTHER = {name: value.clone() for name, value in VALUES.items()} | {"double": torch.tensor(0.2)}


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("earlier", [True, False])
def test_a_write_that_fails_leaves_what_was_there(call, earlier, tmp_path, monkeypatch):
    if earlier:
        write(tmp_path, VALUES, config())
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_from(call))
        with pytest.raises(CheckpointError, match="no space left.*what was there before stays"):
            write(tmp_path, OTHER, config())
    assert sorted(os.listdir(tmp_path)) == ([CONFIG, TENSORS] if earlier else [])
    if earlier:
        assert equal(read(tmp_path).tensors(), VALUES)


def test_a_write_that_is_killed_half_way_is_never_read_as_whole(tmp_path, monkeypatch):
    write(tmp_path, VALUES, config())
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_from(2, last=9))  # nor can it be put back
        with pytest.raises(CheckpointError, match="no space left"):
            write(tmp_path, OTHER, config())
    with pytest.raises(CheckpointError, match="come from different saves; copy both from one"):
        read(tmp_path)


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_folder_in_a_file_s_place(name, tmp_path):
    (tmp_path / name / "kept").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="can't write into"):
        write(tmp_path, VALUES, config())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(CheckpointError, match="no peft_dense"):
        read(tmp_path)


def test_a_file_in_the_folder_s_place(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="can't write into .*file"):
            write(folder, VALUES, config())
        with pytest.raises(CheckpointError, match=f"no {CONFIG} in .*it holds nothing"):
            read(folder)


@pytest.mark.parametrize("there", [True, False])
def test_links_are_replaced_not_followed(there, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    for name in (CONFIG, TENSORS):
        if there:
            (outside / name).write_text("kept")
        (folder / name).symlink_to(outside / name)
    write(folder, VALUES, config())
    assert equal(read(folder).tensors(), VALUES)
    assert not any((folder / name).is_symlink() for name in (CONFIG, TENSORS))
    assert [path.read_text() for path in outside.iterdir()] == (["kept"] * 2 if there else [])


def test_a_link_that_was_there_stays_where_writing_fails(tmp_path, monkeypatch):
    write(tmp_path / "real", VALUES, config())
    (tmp_path / "folder").mkdir()
    for name in (CONFIG, TENSORS):
        (tmp_path / "folder" / name).symlink_to(tmp_path / "real" / name)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail_from(2))
        with pytest.raises(CheckpointError, match="no space left"):
            write(tmp_path / "folder", OTHER, config())
    assert all((tmp_path / "folder" / name).is_symlink() for name in (CONFIG, TENSORS))
    assert equal(read(tmp_path / "folder").tensors(), VALUES)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.ones(2, device="meta"), "a can't be written: its values aren't in this process"),
        (torch.ones(2, dtype=torch.complex128), "a can't be written as torch.complex128; cast it"),
    ],
)
def test_tensors_that_can_not_be_written(tensor, words, tmp_path):
    write(tmp_path, VALUES, config())
    with pytest.raises(CheckpointError, match=words):
        write(tmp_path, {"a": tensor}, config())
    assert sorted(os.listdir(tmp_path)) == [CONFIG, TENSORS]
    assert equal(read(tmp_path).tensors(), VALUES)


def test_tensors_that_are_shared_out_over_processes(tmp_path):
    """FSDP's parameters: one process has a part of their values, and their shape."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        parted = {"a": distribute_tensor(torch.ones(4, 2), mesh, [Shard(0)])}
        assert fingerprint(parted) == fingerprint({"a": torch.ones(4, 2, device="meta")})
        assert weights_id(parted) == weights_id({"a": torch.ones(4, 2, device="meta")})
        with pytest.raises(CheckpointError, match="sharded by FSDP"):
            write(tmp_path, parted, config())
    finally:
        dist.destroy_process_group()


def test_what_would_be_too_long_to_read_is_not_written(tmp_path):
    many = {"a" * (LIMIT + 1): torch.ones(1)}
    with pytest.raises(CheckpointError, match="Shorten the tasks' names"):
        write(tmp_path, many, config())
    with pytest.raises(CheckpointError, match="shorter options"):
        write(tmp_path, VALUES, config(hyperparameters={"a": "b" * LIMIT}))
    assert os.listdir(tmp_path) == []
