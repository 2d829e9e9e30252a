"""Sort the files of a folder into groups that one pattern describes each."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peft_dense.data.images import IMAGES

__all__ = ["SPLITS", "Group", "find_groups"]

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Words for splits in names of folders, and what they mean here."""

_MOST = 200_000
_SHARE = 0.2
"""A tail of names is one kind of file if so many files of the folder have it."""

_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
_AFTER = r"(?:[^a-zA-Z].*)?|(?:annot|images?|labels?|masks?|gt|seg)\w*"
_SPLIT = re.compile(rf"((?:.*[^a-zA-Z])?)({_WORDS})({_AFTER})", re.IGNORECASE)
_TOKENS = re.compile(r"[._-]")
_MANY = "*"


@dataclass
class Group:
    """Files that one pattern describes.

    Args:
        pattern: With ``{id}``, and ``{split}`` or others where folders vary.
        files: By split (the word in the path, or nothing) and id.
    """

    pattern: str
    files: dict[tuple[str, str], Path] = field(default_factory=dict)

    @property
    def ids(self) -> set[tuple[str, str]]:
        """Splits and ids."""
        return set(self.files)

    @property
    def splits(self) -> list[str]:
        """The words for splits in its paths."""
        return sorted({split for split, _ in self.files} - {""})

    def some(self, number: int) -> list[Path]:
        """Give some files, spread evenly."""
        files = list(self.files.values())
        step = max(len(files) / number, 1)
        return [files[int(at * step)] for at in range(min(number, len(files)))]


def find_groups(root: Path) -> list[Group]:
    """Find groups of images and arrays in a folder, the largest first.

    Names that end alike (``_gtFine_labelIds.png``) are one group; folders that differ by a word
    for a split, by their number, or by what lies above them are taken together.

    Args:
        root: The folder.
    """
    folders = _folders(root)
    templates = _split_folders(folders)
    families: dict[tuple[tuple[str, ...], str], list[tuple[str, tuple[str, ...], str]]]
    families = defaultdict(list)
    for folder, names in folders.items():
        word, template = templates[folder]
        for name, tail in _tails(names).items():
            families[template, tail].append((word, folder, name))
    merged = _merge(families)
    groups = [
        _group(root, parts, tail, members)
        for (parts, tail), members in merged.items()
        if len(members) > 1
    ]
    return sorted(groups, key=lambda group: (-len(group.files), group.pattern))


def _folders(root: Path) -> dict[tuple[str, ...], list[str]]:
    """List images and arrays by folder; nothing hidden."""
    found: dict[tuple[str, ...], list[str]] = {}
    seen = 0
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        names = sorted(f for f in files if f.lower().endswith(IMAGES) and not f.startswith("."))
        if names:
            found[Path(folder).relative_to(root).parts] = names
        seen += len(names)
        if seen > _MOST:
            break
    return found


def _tails(names: list[str]) -> dict[str, str]:
    """Give each name the tail that it shares with many others: words and an ending, no numbers."""
    possible = {name: _possible(name) for name in names}
    counts = Counter(tail for tails in possible.values() for tail in tails)
    least = max(2, _SHARE * len(names))
    chosen = {
        name: next((tail for tail in tails if counts[tail] >= least), tails[-1])
        for name, tails in possible.items()
    }
    plain = {tail for tail in chosen.values() if tail.count(".") == 1 and tail.startswith(".")}
    stems = Counter(name.rpartition(".")[0] for name, tail in chosen.items() if tail in plain)
    if len(plain) > 1 and max(stems.values()) == 1:  # one kind of file, saved in several ways
        chosen = {name: ".*" if tail in plain else tail for name, tail in chosen.items()}
    return chosen


def _possible(name: str) -> list[str]:
    """List the tails of a name that hold words alone, the longest first; the ending is the last."""
    tails = []
    for at in [match.start() for match in _TOKENS.finditer(name)]:
        tokens = _TOKENS.split(name[at + 1 :])
        if at and all(any(letter.isalpha() for letter in token) for token in tokens):
            tails.append(name[at:])
    return tails or [f".{name.rpartition('.')[2]}"]


def _split_folders(
    folders: Iterable[tuple[str, ...]],
) -> dict[tuple[str, ...], tuple[str, tuple[str, ...]]]:
    """Find the part of each folder that is a word for a split, if there are several such words."""
    words: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
    places: dict[tuple[str, ...], list[tuple[int, str, str]]] = {}
    for parts in folders:
        places[parts] = []
        for at, part in enumerate(parts):
            found = _SPLIT.fullmatch(part)
            if found:
                template = f"{found[1]}{{split}}{found[3]}"
                words[parts[:at], template].add(found[2])
                places[parts].append((at, template, found[2]))
    chosen = {}
    for parts, candidates in places.items():
        chosen[parts] = ("", parts)
        for at, template, word in candidates:
            if len(words[parts[:at], template]) > 1:
                chosen[parts] = (word, (*parts[:at], template, *parts[at + 1 :]))
                break
    return chosen


_Members = list[tuple[str, tuple[str, ...], str]]


def _merge(
    families: Mapping[tuple[tuple[str, ...], str], _Members],
) -> dict[tuple[tuple[str, ...], str], _Members]:
    """Take folders together that hold one kind of file."""
    merged: dict[tuple[tuple[str, ...], str], _Members] = {}
    beside: dict[tuple[tuple[str, ...], str], list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for parts, tail in families:
        beside[parts[:-1], tail].append((parts, tail))
    for (above, tail), keys in beside.items():
        if len(keys) > 1 and _alike(above, tail, [families[key] for key in keys], keys):
            merged[(*above, _MANY), tail] = [m for key in keys for m in families[key]]
        else:
            merged |= {key: families[key] for key in keys}
    by_end: dict[tuple[int, str, str], list[tuple[tuple[str, ...], str]]] = defaultdict(list)
    for parts, tail in merged:
        if len(parts) > 1:
            by_end[len(parts), parts[-1], tail].append((parts, tail))
    for (_, _, tail), keys in by_end.items():
        splits = {tuple("{split}" in part for part in parts) for parts, _ in keys}
        if len(keys) > 1 and len(splits) == 1:
            columns = zip(*(parts for parts, _ in keys), strict=True)
            parts = tuple(c[0] if len(set(c)) == 1 else _MANY for c in columns)
            members = [member for key in keys for member in merged.pop(key)]
            merged[parts, tail] = members
    return merged


def _alike(
    above: tuple[str, ...],
    tail: str,
    members: list[_Members],
    keys: list[tuple[tuple[str, ...], str]],
) -> bool:
    """Whether sibling folders are parts of one: numbered, or each with ids of its own."""
    if not all(parts for parts, _ in keys):
        return False
    bare = {re.sub(r"\d+", "", parts[-1]) for parts, _ in keys}
    numbered = len(bare) == 1 and any(letter.isdigit() for letter in keys[0][0][-1])
    if numbered and "{split}" not in keys[0][0][-1]:
        return True
    specific = bool(_TOKENS.split(tail[1:])[:-1])
    if not above and not specific:
        return False
    names = [name for each in members for _, _, name in each]
    splits = any("{split}" in parts[-1] for parts, _ in keys)
    return not splits and len(set(names)) == len(names)


def _group(
    root: Path,
    parts: tuple[str, ...],
    tail: str,
    members: _Members,
) -> Group:
    """Write the pattern of files, and find each file's id by it."""
    last = len(parts)
    while last and parts[last - 1] == _MANY:
        last -= 1
    names = iter(("place", *(f"place{number}" for number in range(2, 99))))
    shown = [part if part != _MANY else f"{{{next(names)}}}" for part in parts[:last]]
    group = Group("/".join([*shown, f"{{id}}{tail}"]))
    varying = [at for at in range(last) if parts[at] == _MANY]
    for word, folder, name in members:
        stem = name.rpartition(".")[0] if tail == ".*" else name[: len(name) - len(tail)]
        of_place = [folder[at] for at in varying]
        identity = "/".join([*of_place, *folder[last:], stem])
        group.files[word, identity] = root.joinpath(*folder, name)
    return group
