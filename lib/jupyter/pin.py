"""Pins what a requirements.in asks for, and all that those packages need, by version and hash, in requirements.txt beside it.

Run it after a change of one, with uv, which resolves for all platforms at once:

    python3 -m venv /tmp/pin && /tmp/pin/bin/pip install uv && /tmp/pin/bin/python lib/jupyter/pin.py requirements.in

Of a package's wheels, those are listed that a platform of ours takes: so that the list can be read, and so that nothing is
built from source.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PYTHON = re.compile(r"-(py3|py2\.py3|cp31[1-4]|cp3\d+-abi3)-")
PLATFORM = re.compile(r"-(any|(manylinux|macosx|win)[\w.]*_(x86_64|aarch64|arm64|universal2|amd64)|win_amd64)\.whl$")
HEADER = "# All that {} needs, by version and hash. Made from it by lib/jupyter/pin.py.\n"


def resolve(wanted: Path) -> list[dict]:
    """All packages, with their wheels, for Python 3.11 and later."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "pylock.toml"
        uv = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version=3.11"]
        subprocess.run([*uv, "--format=pylock.toml", "--output-file", lock, wanted], check=True)
        return tomllib.loads(lock.read_text())["packages"]


def line(package: dict) -> str:
    names = {wheel["url"].rsplit("/", 1)[1]: wheel["hashes"]["sha256"] for wheel in package.get("wheels", [])}
    hashes = sorted({sha256 for name, sha256 in names.items() if PYTHON.search(name) and PLATFORM.search(name)})
    if not hashes:
        sys.exit(f"{package['name']} {package['version']} has no wheel for any platform of ours.")
    marker = package.get("marker", "").removeprefix("python_full_version >= '3.11'").removeprefix(" and ")
    marker = f" ; {marker}" if marker else ""
    return " \\\n".join([f"{package['name']}=={package['version']}{marker}", *(f"    --hash=sha256:{h}" for h in hashes)])


if __name__ == "__main__":
    wanted = Path(sys.argv[1])
    wanted.with_suffix(".txt").write_text(HEADER.format(wanted.name) + "\n".join(map(line, resolve(wanted))) + "\n")
