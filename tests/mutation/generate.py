"""Mutants by mutmut, and a sample of them spread over the files by a seed."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = ROOT / "mutants"
_LITERAL = re.compile(r'"[^"\n]*"')


@dataclass(frozen=True)
class Mutant:
    """One change of one function: mutmut's name of it, the file, and the changed lines."""

    name: str
    path: str
    diff: str

    @property
    def function(self) -> str:
        """The function's name as mutmut records its calls."""
        return self.name.partition("__mutmut_")[0]


def generate() -> list[Mutant]:
    """Write ``mutants/`` anew: src with every mutant in it, and the tests beside it."""
    os.chdir(ROOT)  # where mutmut reads its settings, as it is imported
    from mutmut.__main__ import create_mutants
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, walk_mutatable_files

    made_of = hashlib.sha256(Path("pyproject.toml").read_bytes())
    for source in sorted(Path("src").rglob("*.py")):
        made_of.update(source.read_bytes())
    mark = MUTANTS / "made_of"
    known = mark.exists() and mark.read_text() == made_of.hexdigest()
    for part in ("tests", "examples") if known else ("src", "tests", "examples"):
        shutil.rmtree(MUTANTS / part, ignore_errors=True)
    MUTANTS.mkdir(exist_ok=True)
    copy_also_copy_files()
    if not known:
        copy_src_dir()
        create_mutants(max_children=2)
        mark.write_text(made_of.hexdigest())

    mutants = []
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        if not data.exit_code_by_key:
            continue
        lines = (MUTANTS / path).read_text().splitlines()
        spans = json.loads((MUTANTS / f"{path}.spans").read_text())["spans"]
        for name in data.exit_code_by_key:
            mutant = name.rpartition(".")[2]
            original = mutant.partition("__mutmut_")[0] + "__mutmut_orig"
            before, after = (
                lines[first - 1 : last] for first, last in (spans[original], spans[mutant])
            )
            diff = [
                line
                for line in difflib.unified_diff(before, after, n=0, lineterm="")
                if line[:2] not in ("--", "++", "@@") and "__mutmut_" not in line
            ]
            mutants.append(Mutant(name, str(path), "\n".join(diff)))
    return mutants


def words_only(mutant: Mutant) -> bool:
    """Whether only the wording of a message changed: a literal with a space in it.

    Tests hold what an error must name, not how it is worded, so these aren't drawn.
    """
    before, after = (
        [
            text
            for line in mutant.diff.splitlines()
            if line[0] == sign
            for text in _LITERAL.findall(line)
        ]
        for sign in "-+"
    )
    changed = [(a, b) for a, b in zip(before, after, strict=False) if a != b]
    return (
        len(before) == len(after)
        and len(changed) == 1
        and " " in changed[0][0]
        and changed[0][0].lower() == changed[0][1].lower().replace("xx", "")
    )


def draw(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw ``count`` mutants: of each file as many as its share of all, by largest remainder."""
    files: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        files.setdefault(mutant.path, []).append(mutant)
    count = min(count, len(mutants))
    exact = {path: count * len(those) / len(mutants) for path, those in files.items()}
    take = {path: int(share) for path, share in exact.items()}
    by_remainder = sorted(files, key=lambda path: take[path] - exact[path])
    for path in by_remainder[: count - sum(take.values())]:
        take[path] += 1
    generator = random.Random(seed)
    return [m for path, those in files.items() for m in generator.sample(those, take[path])]
