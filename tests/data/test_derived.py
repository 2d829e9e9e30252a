"""DerivedCache: computed once, shared by processes, never trusted when damaged."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peft_dense.data.sources.derived_cache import DerivedCache, default_folder

ARRAY = np.random.default_rng(0).integers(0, 256, (5, 7), np.uint8)


class Counted:
    """Computes an array, and counts how often."""

    def __init__(self, array: np.ndarray = ARRAY) -> None:
        self.array, self.calls = array, 0

    def __call__(self, path: Path) -> np.ndarray:
        self.calls += 1
        return self.array


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "2008_000002.mat"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_array_is_computed_once(tmp_path: Path, source: Path) -> None:
    make = Counted()
    for _ in range(3):  # a new object each time: what is known is on disk
        found = DerivedCache(tmp_path / "cache").get("edge-1", source, make)
        assert found.dtype == np.uint8 and found.tolist() == ARRAY.tolist()
    assert make.calls == 1
    (path,) = kept(tmp_path / "cache")
    assert path.parent == tmp_path / "cache" / "edge-1" and path.name.startswith("2008_000002-")


@pytest.mark.parametrize("change", ["kind", "size", "time", "path"])
def test_another_kind_or_source_is_computed_anew(tmp_path: Path, source: Path, change: str) -> None:
    cache, kind, other = DerivedCache(tmp_path / "cache"), "edge-1", source
    cache.get(kind, source, Counted())
    state = source.stat()
    if change == "kind":
        kind = "edge-2"
    elif change == "size":
        source.write_bytes(b"longer")
        os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif change == "time":
        os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns + 1000))
    else:
        other = tmp_path / "other" / source.name
        other.parent.mkdir()
        source.rename(other)
        os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    make = Counted(255 - ARRAY)
    assert cache.get(kind, other, make).tolist() == make.array.tolist()
    assert make.calls == 1


def test_a_link_to_the_data_is_the_same_data(tmp_path: Path, source: Path) -> None:
    cache, make = DerivedCache(tmp_path / "cache"), Counted()
    (tmp_path / "link").symlink_to(source.parent)
    cache.get("edge-1", source, make)
    cache.get("edge-1", tmp_path / "link" / source.name, make)
    assert make.calls == 1


def test_a_damaged_file_is_made_anew(tmp_path: Path, source: Path) -> None:
    cache = DerivedCache(tmp_path / "cache")
    cache.get("edge-1", source, Counted())
    (path,) = kept(tmp_path / "cache")
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(len(whole))]
    changed = [
        whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :]
        for at in range(len(whole))
        for bits in (1, 0x80)
    ]
    remade = 0
    for damaged in [*cut, *changed, b"not a png"]:
        path.write_bytes(damaged)
        make = Counted()
        assert cache.get("edge-1", source, make).tolist() == ARRAY.tolist()
        remade += make.calls
        assert make.calls == 0 or path.read_bytes() == whole
    assert remade > 0.9 * len(cut + changed)  # some bytes, as a chunk's end, tell nothing


def hammer(folder: Path, source: Path, start: Any, failures: Any) -> None:
    warnings.simplefilter("error")
    start.wait()
    for turn in range(60):
        cache = DerivedCache(folder)
        if cache.get(f"kind-{turn}", source, Counted()).tolist() != ARRAY.tolist():
            failures.put(turn)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_processes_may_write_at_once(tmp_path: Path, source: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, failures = context.Barrier(3), context.Queue()
    arguments = (tmp_path / "cache", source, start, failures)
    processes = [context.Process(target=hammer, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert failures.empty()
    paths = kept(tmp_path / "cache")
    assert len(paths) == 60 and all(path.suffix == ".png" for path in paths)


def test_without_a_cache_nothing_is_kept(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFT_DENSE_CACHE", str(tmp_path / "cache"))
    cache, make = DerivedCache(False), Counted()
    for _ in range(2):
        assert cache.get("edge-1", source, make).tolist() == ARRAY.tolist()
    assert make.calls == 2 and not (tmp_path / "cache").exists()


def test_the_folder_may_be_deleted_at_any_time(tmp_path: Path, source: Path) -> None:
    cache, make = DerivedCache(tmp_path / "some" / "cache"), Counted()
    for _ in range(2):
        cache.get("edge-1", source, make)
        assert len(kept(tmp_path / "some")) == 1
        shutil.rmtree(tmp_path / "some")
    assert make.calls == 2


def test_a_name_that_is_no_utf8_is_a_name(tmp_path: Path) -> None:
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mat"))
    try:
        source.write_bytes(b"one")
    except OSError:
        pytest.skip("no such names here")
    make = Counted()
    for _ in range(2):
        DerivedCache(tmp_path / "cache").get("edge-1", source, make)
    assert make.calls == 1


def test_a_folder_that_can_not_be_made_warns_once(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"can't keep derived labels: .*pass cache=FOLDER"):
        cache = DerivedCache(tmp_path / "file" / "cache")
    for _ in range(2):
        assert cache.get("edge-1", source, Counted()).tolist() == ARRAY.tolist()


def test_a_folder_that_can_not_be_written_is_still_read(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DerivedCache(tmp_path / "cache").get("edge-1", source, Counted())
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.warns(UserWarning, match="no permission to write to"):
        cache = DerivedCache(tmp_path / "cache")
    make = Counted()
    for kind in ("edge-1", "edge-2", "edge-2"):
        assert cache.get(kind, source, make).tolist() == ARRAY.tolist()
    assert make.calls == 2 and len(kept(tmp_path / "cache")) == 1


def test_a_write_that_fails_warns_once_and_leaves_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    cache = DerivedCache(tmp_path / "cache")
    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        cache.get("edge-1", source, Counted())
    assert cache.get("edge-1", source, Counted()).tolist() == ARRAY.tolist()
    assert kept(tmp_path / "cache") == []


def test_a_source_that_is_not_there_is_for_the_maker_to_tell(tmp_path: Path) -> None:
    def make(path: Path) -> np.ndarray:
        raise ValueError(f"no {path}")

    with pytest.raises(ValueError, match="no ghost"):
        DerivedCache(tmp_path / "cache").get("edge-1", Path("ghost"), make)


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PEFT_DENSE_CACHE", "~/mine")
    assert default_folder() == tmp_path / "mine"
    monkeypatch.setenv("PEFT_DENSE_CACHE", "")
    assert default_folder() == tmp_path / ".cache" / "peft_dense"
    monkeypatch.delenv("PEFT_DENSE_CACHE")
    assert DerivedCache().folder == tmp_path / ".cache" / "peft_dense"
