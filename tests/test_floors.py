"""The import law: a file imports only from lower floors, or from its own package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import peft_dense

ROOT = Path(peft_dense.__file__).parent

# Edit here to place a new module. On floors of single files these may import one another, in no
# circle; the packages of a floor may not.
FLOORS = {
    0: {"_version", "errors", "layout", "ledger", "papers"},
    1: {"keeping", "nn"},
    2: {"backbones"},
    3: {"methods", "heads", "tasks", "ownership"},
    4: {"adapted", "counting", "dense", "explaining", "folders", "injection", "surgery"},
    5: {"conflict", "data"},
    6: {"predicting"},
    7: {"training"},
    8: {"cli"},
    9: {"peft_dense", "__main__"},
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
OPEN_FLOORS = (0, 4)

FILES = sorted(ROOT.rglob("*.py"))


def part_of(dotted: str) -> str:
    """peft_dense.nn.vmt -> nn; the package itself, and names of its shop window -> peft_dense."""
    part = dotted.removeprefix("peft_dense").lstrip(".").split(".")[0]
    here = (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file()
    return part if part and here else "peft_dense"


def imports(file: Path) -> Iterator[str]:
    """Every part of the package that a file imports, also inside functions; not for types only."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    types_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in types_only:
            continue
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively; write the whole name"
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (part_of(name) for name in dotted if name.split(".")[0] == "peft_dense")


def own_part(file: Path) -> str:
    first = file.relative_to(ROOT).parts[0].removesuffix(".py")
    return "peft_dense" if first == "__init__" else first


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_file_imports_only_from_lower_floors(file: Path) -> None:
    own = own_part(file)
    assert own in FLOOR, f"{own} stands on no floor; place it in FLOORS"
    for part in imports(file):
        assert part in FLOOR, f"{part} stands on no floor; place it in FLOORS"
        allowed = (
            part == own or FLOOR[part] < FLOOR[own] or FLOOR[part] == FLOOR[own] in OPEN_FLOORS
        )
        assert allowed, f"{own} (floor {FLOOR[own]}) imports {part} (floor {FLOOR[part]})"


@pytest.mark.parametrize("floor", OPEN_FLOORS)
def test_same_floor_imports_make_no_circle(floor: int) -> None:
    needs = {part: set(imports(ROOT / f"{part}.py")) - {part} for part in FLOORS[floor]}
    while needs:
        free = {part for part in needs if not needs[part] & needs.keys()}
        assert free, f"these import one another in a circle: {', '.join(sorted(needs))}"
        needs = {part: wanted for part, wanted in needs.items() if part not in free}
