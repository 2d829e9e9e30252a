"""What is written is true: code in the docs runs, public names are documented, tables hold."""

from __future__ import annotations

import json
import pkgutil
import re
import runpy
from pathlib import Path
from textwrap import dedent

import pytest
import timm

import peft_dense
from peft_dense import heads, papers
from peft_dense.backbones import examine
from peft_dense.methods import base, method, methods
from peft_dense.tasks import registry, task, tasks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
API = [page for page in PAGES if page.parent.name == "api"]
PUBLIC = [name for name in peft_dense.__all__ if name != "__version__"]

BLOCK = re.compile(
    r"^(?P<before>[^\n]*)\n *```python\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
NOT_RUN = re.compile(r" *<!-- not run: \S.* -->")
DIRECTIVE = re.compile(r"^::: (\S+)(?:\n    options: .*members: \[(.*?)\])?", re.MULTILINE)

REGISTERS = ((base, "_REGISTRY"), (heads.base, "_HEADS"), (registry, "_TASKS"))


def code_of(page: Path) -> str:
    """The blocks of a page one after another, on the lines they have in it."""
    text = "\n" + page.read_text(encoding="utf-8")
    code = ""
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == text.count("```python"), f"a block in {page.name} doesn't end"
    for block in blocks:
        if not NOT_RUN.fullmatch(block["before"]):
            lines_above = text.count("\n", 0, block.start("code")) - 1
            code += "\n" * (lines_above - code.count("\n")) + dedent(block["code"])
    return code


def documented() -> set[str]:
    """Dotted names of everything that the API pages show."""
    names = set()
    for page in API:
        for target, members in DIRECTIVE.findall(page.read_text(encoding="utf-8")):
            names |= {target, *(f"{target}.{name.strip()}" for name in members.split(",") if name)}
    return names


def resolved(name: str) -> object:
    """What a dotted name stands for, or nothing where that is no name, such as a package's file."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError):
        return None


@pytest.mark.parametrize(
    "page", [page for page in PAGES if code_of(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A page may register methods, heads and tasks of its own; the next test mustn't see them.
    for module, register in REGISTERS:
        monkeypatch.setattr(module, register, dict(getattr(module, register)))
    exec(compile(code_of(page), str(page), "exec", dont_inherit=True), {"__name__": "__docs__"})


def test_readme_has_code_that_runs() -> None:
    assert "inject(" in code_of(ROOT / "README.md")


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_a_docstring(name: str) -> None:
    text = getattr(peft_dense, name).__doc__ or ""
    assert text and not text.startswith(f"{name}("), f"write a docstring for {name}"


@pytest.mark.parametrize("name", sorted(documented()))
def test_api_pages_name_what_exists(name: str) -> None:
    pkgutil.resolve_name(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_on_an_api_page(name: str) -> None:
    shown = [target for target in documented() if target.endswith(f".{name}")]
    thing = getattr(peft_dense, name)
    thing = getattr(thing, name, thing)  # peft_dense.methods is a package that is called
    assert any(pkgutil.resolve_name(target) is thing for target in shown), (
        f"add '::: peft_dense.{name}' to a page in docs/api"
    )


def test_no_public_member_falls_between_two_pages() -> None:
    """A class whose members a page chooses is shown whole by all pages together."""
    shown = documented()
    parts = {name.rpartition(".")[0] for name in shown}
    classes = {name: thing for name in parts if isinstance(thing := resolved(name), type)}
    assert "peft_dense.AdaptedBackbone" in classes
    for name, thing in classes.items():
        public = {member for member in vars(thing) if not member.startswith("_")} - {"extra_repr"}
        described = {member for member in public if getattr(vars(thing)[member], "__doc__", None)}
        missing = {f"{name}.{member}" for member in described} - shown
        assert not missing, f"add to a page in docs/api: {sorted(missing)}"


@pytest.mark.parametrize("name", methods())
def test_method_is_on_its_api_page(name: str) -> None:
    thing = type(method(name))
    target = f"{thing.__module__}.{thing.__qualname__}"
    assert target in documented(), f"add {target} to a page docs/api/methods_*.md"


def test_readme_table_of_methods_holds() -> None:
    info = examine(timm.create_model("swin_tiny_patch4_window7_224"))
    expected = {
        name: ("1" if how.one_path else "T", f"{how.count(info, 4):,}")
        for name in methods()
        for how in [method(name).resolve(info)]
    }
    row = re.compile(r"^\| `(\w+)` \|.*\| (\S+) \| ([\d,]+) \|$", re.MULTILINE)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {name: (passes, count) for name, passes, count in row.findall(text)}
    assert len(shown) >= 5
    assert shown.items() <= expected.items()  # a new method needs no row here


def test_the_readme_stands_alone() -> None:
    """On the package index there are no files beside it: links and pictures are absolute."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 8 and all(link.startswith("https://") for link in links)
    assert len(text.splitlines()) <= 150
    repository = re.escape("https://github.com/peft-dense/peft-dense")
    raw = re.escape("https://raw.githubusercontent.com/peft-dense/peft-dense/main/")
    for link in links:
        inside = re.match(rf"{repository}/(?:blob|tree)/main/(.+)|{raw}(.+)", link)
        if inside:
            assert (ROOT / (inside[1] or inside[2])).exists(), link


def test_the_page_of_tasks_holds() -> None:
    row = re.compile(r"^\| `(\w+)` \| (\d+)[^|]*\|[^|]*\| `(\w+)`[^|]*\| (\w+) \|$", re.MULTILINE)
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    expected = [task(name) for name in tasks()]
    assert {(name, int(n), metric, better) for name, n, metric, better in row.findall(text)} == {
        (t.name, t.channels, t.metric, "higher" if t.higher_is_better else "lower")
        for t in expected
    }


def test_the_page_of_assumptions_names_every_row_that_is_not_certain() -> None:
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").lower()
    open_rows = [row for row in papers.ROWS if row.certainty != "high"]
    assert open_rows
    families = {"vmt": "vmt-adapter", "vmt_lite": "lite", "polyhistor_lite": "scaling kernels"}
    for row in open_rows:
        assert families.get(row.method, row.method) in text, f"say of {row.label} what was assumed"


def test_drawings_are_what_their_command_writes() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_drawings.py"))["DRAWINGS"]
    for name, draw in made.items():
        kept = (ROOT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8")
        assert kept == draw(), "run python docs/make_drawings.py"


def test_a_notebook_becomes_a_page_with_its_outputs() -> None:
    convert = runpy.run_path(str(ROOT / "docs" / "notebooks.py"))["convert"]
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        source = path.read_text(encoding="utf-8")
        page, pictures = convert(source, path.stem)
        cells = json.loads(source)["cells"]
        assert f"({path.stem}.ipynb)" in page and all(f"({name})" in page for name in pictures)
        assert all(content.startswith((b"\x89PNG", b"\xff\xd8")) for content in pictures.values())
        for cell in cells:
            assert cell["cell_type"] != "code" or "".join(cell["source"]).rstrip() in page
            for output in cell.get("outputs", []):
                assert "".join(output.get("text", "")).rstrip() in page


def test_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(peft_dense.__version__)}\] - \S+$", text, re.MULTILINE)
