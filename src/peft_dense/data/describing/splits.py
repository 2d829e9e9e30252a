"""Guess which images are for training: by folders, by lists, or as shares."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from peft_dense.data.described.toml import quoted
from peft_dense.data.describing.groups import SPLITS, Group

__all__ = ["SplitDraft", "draft_splits"]

_FRAMES = 0.8


@dataclass
class SplitDraft:
    """The tables of splits in a draft.

    Args:
        text: Their TOML.
        guessed: What was guessed.
        doubts: What a person has to check.
    """

    text: str
    guessed: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def draft_splits(root: Path, images: Group) -> SplitDraft:
    """Draft the splits of some images.

    Args:
        root: The set's folder.
        images: Its images.
    """
    if images.splits:
        return _by_folder(images)
    return _by_lists(root, images) or _by_share(images)


def _by_folder(images: Group) -> SplitDraft:
    words = {SPLITS.get(word.lower(), word): word for word in images.splits}
    lines = [f"{name} = {{ folder = {quoted(word)} }}" for name, word in words.items()]
    draft = SplitDraft("", [f"splits: folders {', '.join(images.splits)}"])
    if "val" not in words and "test" in words:
        lines = [line.replace("test = ", "val = ", 1) for line in lines]
        draft.doubts.append("splits: there is no folder to validate on, so val is that of test")
    elif "val" not in words and "train" in words:
        word = quoted(words["train"])
        lines = [line for line in lines if not line.startswith("train ")]
        lines.insert(0, f"train = {{ folder = {word}, share = 0.8 }}")
        lines.insert(1, f"val = {{ folder = {word}, share = 0.2 }}")
        draft.doubts.append("splits: there is nothing to validate on, so a fifth of train is val")
    draft.text = "\n".join(["[splits]", *_ordered(lines)]) + "\n"
    return draft


def _by_lists(root: Path, images: Group) -> SplitDraft | None:
    """Find text files that are called as splits and whose lines hold ids."""
    ids = {name for _, name in images.files}
    found: dict[str, tuple[str, str | None]] = {}
    for path in sorted(root.rglob("*.txt"), key=lambda p: (len(p.parts), str(p))):
        name = SPLITS.get(path.stem.lower())
        if name is None or name in found:
            continue
        try:
            lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError):
            continue
        form = _form([line for line in lines if line], ids)
        if form is not None:
            found[name] = path.relative_to(root).as_posix(), form or None
    if "train" not in found:
        return None
    lines = [
        f"{name} = {quoted(file)}"
        if line is None
        else f"{name} = {{ list = {quoted(file)}, line = {quoted(line)} }}"
        for name, (file, line) in found.items()
    ]
    draft = SplitDraft("", [f"splits: lists {', '.join(file for file, _ in found.values())}"])
    if "val" not in found:
        file = found.get("test", found["train"])
        how = f"list = {quoted(file[0])}" + (f", line = {quoted(file[1])}" if file[1] else "")
        if "test" in found:
            lines = [line.replace("test = ", "val = ", 1) for line in lines]
            which = "that of test"
        else:
            lines = [f"train = {{ {how}, share = 0.8 }}", f"val = {{ {how}, share = 0.2 }}"]
            which = "a fifth of train"
        draft.doubts.append(f"splits: there is no list to validate on, so val is {which}")
    draft.text = "\n".join(["[splits]", *_ordered(lines)]) + "\n"
    return draft


def _form(lines: list[str], ids: set[str]) -> str | None:
    """Give the form of lines: empty if they are ids, a pattern, or None if they hold no ids."""
    if not lines or not ids:
        return None
    if sum(line in ids for line in lines) >= 0.5 * len(lines):
        return ""
    for line in lines[:20]:
        for word in re.split(r"[\s,]+", line):
            stem, dot, ending = word.rpartition(".")
            name = next((s for s in _endings(stem if dot else word) if s in ids), None)
            if name is None:
                continue
            before, _, after = line.partition(f"{name}{dot}{ending}" if dot else name)
            start = "*" if before else ""
            if before.endswith("/"):
                start = "*/"
            tail = f".{ending}" if dot else ""
            rest = " *" if after.startswith(" ") else "*" if after else ""
            return f"{start}{{id}}{tail}{rest}"
    return None


def _endings(path: str) -> list[str]:
    """Give a path, and what is left of it without its first folders."""
    parts = path.split("/")
    return ["/".join(parts[at:]) for at in range(len(parts))]


def _by_share(images: Group) -> SplitDraft:
    """Draw a fifth to validate on; of frames of a video, the last fifth."""
    names = sorted(name for _, name in images.files)
    numbers = [int(found[-1]) for name in names if (found := re.findall(r"\d+", name))]
    steps = [after - before for before, after in pairwise(numbers)]
    frames = len(steps) > 4 and sum(step == steps[0] for step in steps) > _FRAMES * len(steps)
    text = "[splits]\ntrain = { share = 0.8 }\nval = { share = 0.2 }\n"
    draft = SplitDraft(text, ["splits: shares, as there are neither folders nor lists of splits"])
    if frames:
        draft.text += '\n[splitting]\norder = "name"\n'
        draft.doubts.append(
            "splits: names count on as frames of a video do, so the last fifth is val; if they "
            "aren't, take [splitting] out"
        )
    else:
        draft.doubts.append(
            "splits: a fifth is drawn to validate on; give lists if there are any, and "
            "[splitting] by = ... if some images show the same place"
        )
    return draft


def _ordered(lines: list[str]) -> list[str]:
    order = ("train", "val", "test")
    rank = {name: at for at, name in enumerate(order)}
    return sorted(lines, key=lambda line: rank.get(line.split(" ", 1)[0], len(order)))
