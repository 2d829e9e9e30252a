"""Files that are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from peft_dense.keeping.whole import put_whole


def test_an_error_names_what_is_in_the_way(tmp_path: Path) -> None:
    """Not the hidden file that was to be written beside the place."""
    (tmp_path / "folder").write_bytes(b"a file")
    with pytest.raises(FileExistsError) as caught:
        put_whole(tmp_path / "folder" / "a.png", lambda file: file.write(b"new"))
    assert Path(caught.value.filename) == tmp_path / "folder"


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"old")

    def fail(file: object) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        put_whole(tmp_path / "a.txt", fail)
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"
