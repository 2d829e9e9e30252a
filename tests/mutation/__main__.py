"""Run a sample of mutants and print what became of them, by file."""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mutation.generate import MUTANTS, Mutant, draw, generate, words_only
from mutation.session import NOTHING, Mutation

TESTS = {
    "core": (
        "tests/nn",
        "tests/core/test_ownership.py",
        "tests/core/test_record.py",
        "tests/core/test_surgery.py",
        "tests/methods",
        "tests/backbones",
        "tests/keeping/test_compare.py",
        "tests/keeping/test_folders.py",
        "tests/test_inject.py",
        "tests/test_dense.py",
        "tests/test_dense_heads.py",
        "tests/test_counts.py",
        "tests/test_laws.py",
        "src/peft_dense/nn",
        "src/peft_dense/methods",
        "src/peft_dense/backbones",
    ),
    "training": (
        "tests/training",
        "tests/examples/test_train.py",
        "tests/examples/test_pascal_context.py",
        "tests/test_cli_train.py",
        "tests/test_tradeoff.py",
        "src/peft_dense/training",
    ),
    "data": ("tests/data", "tests/test_cli_data.py", "src/peft_dense/data"),
    "tasks": ("tests/tasks", "src/peft_dense/tasks"),
}
"""The tests of each room. What lies in no room of its own is of the core."""


def room_of(mutant: Mutant) -> str:
    """The room that a mutant's file lies in."""
    folder = Path(mutant.path).parts[2]
    return folder if folder in TESTS else "core"


def digest(path: str) -> str:
    """A digest of a test's file and of all sources: what was measured holds while it stays."""
    found = hashlib.sha256(Path(path).read_bytes())
    for source in sorted(Path("src").rglob("*.py")):
        found.update(source.read_bytes())
    return found.hexdigest()


def measured(mutation: Mutation, rooms: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure the tests, but for those whose measurement is kept and still holds."""
    kept = MUTANTS / f"measured-{'-'.join(rooms)}.json"
    digests = {path: digest(path) for path in {name.split("::")[0] for name in mutation.items}}
    known = json.loads(kept.read_text()) if kept.exists() else {}
    known = {
        name: test
        for name, test in known.items()
        if name in mutation.items and test["digest"] == digests[name.split("::")[0]]
    }
    print(f"{len(mutation.items)} tests, {len(known)} of them measured before", flush=True)
    for name, test in mutation.measure(known):
        known[name] = {**test, "digest": digests[name.split("::")[0]]}
        kept.write_text(json.dumps(known))
    left_out = {name: test["failed"] for name, test in known.items() if test["failed"]}
    seconds = sum(test["seconds"] for test in known.values() if not test["failed"])
    print(f"{len(known) - len(left_out)} tests used, {seconds:.0f} processor seconds")
    slow = [name for name, why in left_out.items() if "TooSlow" in why]
    apart = [name for name, why in left_out.items() if "OtherProcess" in why]
    fail = [name for name in left_out if name not in {*slow, *apart}]
    print(f"left out: {len(slow)} slow ones, {len(apart)} that start other processes,")
    print(f"and {len(fail)} that fail here:")
    for name in fail:
        print(f"  {name}: {left_out[name][:150]}")
    sys.stdout.flush()
    return known


def table(results: dict[str, dict[str, Any]], sample: list[Mutant], of: Counter[str]) -> str:
    """A line per file: its mutants, those drawn, and what became of them."""
    statuses = ("killed", "timeout", "crashed", "survived", "not called")
    lines = ["| file | mutants | drawn | " + " | ".join(statuses) + " |", "|---" * 8 + "|"]
    by_file: dict[str, Counter[str]] = {}
    for mutant in sample:
        if mutant.name in results:
            by_file.setdefault(mutant.path, Counter())[results[mutant.name]["status"]] += 1
    whole: Counter[str] = Counter()
    for path, found in sorted(by_file.items()):
        whole += found
        cells = [path.removeprefix("src/peft_dense/"), of[path], found.total()]
        lines.append("| " + " | ".join(map(str, [*cells, *(found[s] for s in statuses)])) + " |")
    cells = ["all", of.total(), whole.total(), *(whole[s] for s in statuses)]
    lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Draw mutants, run them, and write what became of them into ``mutants/``."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("--rooms", default="core", help="of: " + ",".join(TESTS))
    parser.add_argument("--sample", type=int, default=400, help="how many mutants are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, help="run so many of the drawn ones only")
    parser.add_argument("--budget", type=float, default=30, help="processor seconds per mutant")
    parser.add_argument("--width", type=int, default=2, help="processes at a time")
    parser.add_argument("--again", nargs="+", help="run those of these statuses again")
    parser.add_argument("--only", nargs="+", help="run these mutants, by name")
    chosen = parser.parse_args()
    rooms = chosen.rooms.split(",")
    if unknown := set(rooms) - set(TESTS):
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}")

    # Set before torch is imported: one thread per process, examples that don't change.
    os.environ.update(OMP_NUM_THREADS="1", CI="1", PYTHONPATH=str(MUTANTS / "src"))
    mutants = [mutant for mutant in generate() if room_of(mutant) in rooms]
    drawable = [mutant for mutant in mutants if not words_only(mutant)]
    sample = draw(drawable, chosen.sample, chosen.seed)
    of = Counter(mutant.path for mutant in drawable)
    print(f"{len(mutants)} mutants, {len(mutants) - len(drawable)} of a message's wording only")

    kept = MUTANTS / f"results-{'-'.join(rooms)}-{chosen.seed}.json"
    results: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    diffs = {mutant.name: mutant.diff for mutant in mutants}
    results = {n: r for n, r in results.items() if r["diff"] == diffs.get(n)}

    if chosen.only:
        wanted = [mutant for mutant in mutants if mutant.name in chosen.only]
    elif chosen.again:
        wanted = [m for m in sample if results.get(m.name, {}).get("status") in chosen.again]
    else:
        import random

        order = random.Random(chosen.seed).sample(sample, len(sample))[: chosen.first]
        wanted = [mutant for mutant in order if mutant.name not in results]

    def work(mutation: Mutation) -> None:
        import torch

        torch.set_num_threads(1)
        mutation.measured = measured(mutation, rooms)
        # The same tests without a mutant must pass, or a kill says nothing.
        controls = [(f"{NOTHING}{i}", m.function) for i, m in enumerate(wanted[::80])]
        pairs = [*controls, *((mutant.name, mutant.function) for mutant in wanted)]
        done = 0
        for name, result in mutation.run(pairs, chosen.budget):
            done += 1
            if name.startswith(NOTHING):
                if result["status"] not in ("survived", "not called"):
                    print("A CONTROL FAILED:", result, flush=True)
                continue
            results[name] = {**result, "diff": diffs[name]}
            kept.write_text(json.dumps(results, indent=1, ensure_ascii=False))
            if result["status"] != "killed" or chosen.only:
                print(f"{done}/{len(pairs)}", result["status"], name, result.get("tests"))
                print(diffs[name], "\n ", result["by"], result["why"], flush=True)

    os.chdir(MUTANTS)
    sys.path.insert(0, str(MUTANTS / "src"))
    import pytest

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = temporary
        flags = ["-q", "-s", "-p", "no:cacheprovider", "--rootdir=.", "-m", ""]
        tests = [path for room in rooms for path in TESTS[room]]
        pytest.main([*flags, *tests], plugins=[Mutation(work, chosen.width)])
    print(table(results, sample, of))


if __name__ == "__main__":
    main()
