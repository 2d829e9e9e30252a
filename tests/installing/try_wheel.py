"""Install a wheel into an empty environment without extras, and use it as a stranger would.

``python try_wheel.py DIST README``: README's blocks, saving and loading, ``peft-dense params``, and
what is said where an extra is missing. Run by ``make test-install``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

SAVE = """
import timm, torch, peft_dense
net = timm.create_model("pvt_v2_b0").eval()
encoder = peft_dense.inject(net, "vmt_lite", tasks=["semseg", "normals"]).eval()
encoder.save("kept")
x = torch.randn(1, 3, 64, 64)
again = peft_dense.AdaptedBackbone.load("kept", net).eval()
for task, stages in encoder(x).items():
    assert all(torch.equal(a, b) for a, b in zip(stages, again(x)[task]))
assert "site-packages" in peft_dense.__file__
"""


def run(*command: str, cwd: Path, code: int = 0) -> str:
    """Run a command, and give what it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{command}: exit code {done.returncode}\n{said}"
    return said


def main(dist: Path, readme: Path) -> None:
    """Try the one wheel that lies in ``dist``."""
    (wheel,) = dist.resolve().glob("*.whl")
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks, "README has no Python"
    # Here the weights are random: a test downloads nothing.
    script = "\n".join(blocks).replace("pretrained=True", "pretrained=False")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = str(home / "env/bin/python")
        command = str(home / "env/bin/peft-dense")
        run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=home)
        run(python, "-c", script, cwd=home)
        run(python, "-c", SAVE, cwd=home)
        assert "vmt_lite" in run(command, "params", "pvt_v2_b0", "--method", "vmt_lite", cwd=home)
        said = run(command, "train", "--out", "runs", cwd=home, code=2)
        assert "peft-dense[train]" in said and "Traceback" not in said, said
    sys.stdout.write(f"{wheel.name}: installed, README's blocks, saving and the command work\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
