"""What runs on a managed host runs on Python 3.6, the Python of Ubuntu 18.04; apir_py on 3.9, Debian 11's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import rendering

VERMIN = Path(sys.executable).with_name("vermin")
ON_HOSTS = sorted(
    path
    for pattern in ("plugins/modules/*.py", "plugins/module_utils/*.py", "roles/*/files/**/*.py")
    for path in rendering.ROOT.glob(pattern)
)
APIR_PY = sorted(rendering.ROOT.glob("apir_py/src/**/*.py"))


def oldest_python(path: Path, oldest: str = "3.6") -> subprocess.CompletedProcess:
    """Vermin's verdict on a file, both its syntax and what it takes from the standard library."""
    command = [VERMIN, f"--target={oldest}-", "--violations", "--no-tips", "--no-config-file", path]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", ON_HOSTS, ids=lambda path: str(path.relative_to(rendering.ROOT)))
def test_code_of_hosts_runs_on_python_36(path):
    verdict = oldest_python(path)
    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize("path", APIR_PY, ids=lambda path: str(path.relative_to(rendering.ROOT)))
def test_apir_py_runs_on_python_39(path):
    verdict = oldest_python(path, "3.9")
    assert verdict.returncode == 0, verdict.stdout


@pytest.mark.parametrize(
    "line",
    [
        "from __future__ import annotations",
        "if (n := 1): pass",
        "import subprocess; subprocess.run([], capture_output=True)",
    ],
)
def test_newer_python_is_found(line, tmp_path):
    newer = tmp_path / "newer.py"
    newer.write_text(f"{line}\n")
    assert oldest_python(newer).returncode != 0
