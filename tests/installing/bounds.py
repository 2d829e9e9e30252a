"""Print the lower bounds of pyproject.toml as pip's constraints: ``torch>=2.5`` as ``torch==2.5``.

Run by ``make test-oldest`` with the interpreter that is to be tested, for whose version a marker
counts. Needs nothing but Python and pip.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
EXTRAS = ("train",)
TOOLS = ("hypothesis", "pytest", "scikit-image")
"""Of the extra ``test``, what the core's tests import."""
BOUND = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)(?:; *python_version < '3\.(\d+)')?")


def bounds(text: str, version: tuple[int, int] = sys.version_info[:2]) -> dict[str, str]:
    """Give the lower bound of every package that the core's tests run with, by its name."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += extras[extra]
    wanted += [line for line in extras["test"] if re.split("[^a-z-]", line)[0] in TOOLS]
    found = {}
    for line in wanted:
        match = BOUND.fullmatch(line)
        if match is None:
            raise SystemExit(
                f"{line!r} has no lower bound that can be tested; write name>=version."
            )
        name, lowest, below = match.groups()
        if below is None or version < (3, int(below)):
            found[name] = lowest
    return found


if __name__ == "__main__":
    for package, lowest in bounds(PYPROJECT.read_text(encoding="utf-8")).items():
        sys.stdout.write(f"{package}=={lowest}\n")
