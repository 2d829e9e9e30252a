"""examples/notebooks: each runs from top to bottom, and shows what the stored one shows.

``python tests/examples/test_notebooks.py [FILE ...]`` runs notebooks, by default all, and stores
their outputs anew, without progress bars.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

pytest.importorskip("accelerate")
pytest.importorskip("tensorboard")
pytest.importorskip("skimage")
pytest.importorskip("ipykernel")
pytest.importorskip("nbclient")

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MOST_BYTES, MOST_CELLS, LARGE_PICTURE = 400_000, 20, 100_000
BAR = re.compile(r".*(\d+%\||\d\S*(s|step|it)/(s|step|it)\b).*|\S.*, step \d+: .*|\s*")
ABSOLUTE = re.compile(r"(?<![\w.)\]])/\w+/|[A-Z]:\\|~/")


class OwnKernel(AsyncKernelManager):
    """A kernel of this interpreter, whatever kernels are registered on the machine."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # only ipykernel's own is left


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def execute(path: Path, folder: Path) -> Any:
    """Run a notebook in an empty folder; an error in a cell is raised."""
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_manager_class=OwnKernel,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    own = {"IPYTHONDIR": str(folder / ".ipython"), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return client.execute(env={**os.environ, **own})


def text_of(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    return str(output.get("data", {}).get("text/plain", ""))


def shown(cell: Any) -> set[str]:
    """Kinds of what a reader sees: what is printed, text, pictures."""
    kinds = {o.name for o in cell.outputs if o.output_type == "stream"} - {"stderr"}
    data = [kind for o in cell.outputs if "data" in o for kind in o.data]
    return kinds | {"picture" if kind.startswith("image/") else kind for kind in data}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_shows_what_is_stored(path: Path, tmp_path: Path) -> None:
    ran, stored = code_cells(execute(path, tmp_path)), code_cells(read(path))
    for now, then in zip(ran, stored, strict=True):
        assert shown(now) == shown(then), f"store {path.name} anew: {now.id}"
        noise = "".join(o.text for o in now.outputs if o.get("name") == "stderr")
        assert not [line for line in re.split(r"[\r\n]", noise) if not BAR.fullmatch(line)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_clean(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        calls = [n.func for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Call)]
        if any(isinstance(f, ast.Name) and f.id == "print" for f in calls):
            assert "stdout" in shown(cell), f"{cell.id} prints, and shows nothing"
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr"
            assert not ABSOLUTE.search(text_of(output)), text_of(output)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.metadata.kernelspec.name) == (4, "python3")
    ids = [cell.get("id") for cell in notebook.cells]
    assert all(ids) and len(set(ids)) == len(ids) <= MOST_CELLS
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert "pip install 'peft-dense[train]'" in first.source


def test_every_notebook_is_named_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert NOTEBOOKS
    assert set(re.findall(r"\w+\.ipynb", text)) == {path.name for path in NOTEBOOKS}


def smaller(data: Any) -> None:
    """Keep a picture once: as a PNG, or where that is large as a JPEG."""
    picture, kept = Image.open(BytesIO(b64decode(data.pop("image/png")))).convert("RGB"), BytesIO()
    data.pop("image/jpeg", None)
    picture.save(kept, "PNG", optimize=True)
    kind = "image/png"
    if kept.tell() > LARGE_PICTURE:
        kind, kept = "image/jpeg", BytesIO()
        picture.save(kept, "JPEG", quality=90, subsampling=0, optimize=True)
    data[kind] = b64encode(kept.getvalue()).decode()


def store(path: Path) -> None:
    """Run a notebook and keep what it shows; of its metadata and progress bars nothing."""
    with TemporaryDirectory() as folder:
        ran = execute(path, Path(folder))
    for cell in code_cells(ran):
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                smaller(output.data)
    ran.metadata = read(path).metadata
    nbformat.write(ran, path)


if __name__ == "__main__":
    for name in map(Path, sys.argv[1:] or NOTEBOOKS):
        store(name)
        sys.stdout.write(f"{name.name}: {name.stat().st_size:,} bytes\n")
