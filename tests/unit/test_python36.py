"""What runs on a managed host runs on Python 3.6, the Python of Ubuntu 18.04; apir_py on 3.8, its newest.

What runs on a controller runs on Python 3.10.
"""

from __future__ import annotations

import ast
import re
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
MODULES = "(asyncio|collections|contextlib|os|queue|re|subprocess)"
ON_CONTROLLERS = sorted({*rendering.ROOT.glob("plugins/**/*.py"), *rendering.ROOT.glob("container/*.py")} - {*ON_HOSTS})
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
def test_apir_py_runs_on_python_38(path):
    verdict = oldest_python(path, "3.8")
    assert verdict.returncode == 0, verdict.stdout
    assert not generic_expressions(path.read_text())


@pytest.mark.parametrize("path", ON_CONTROLLERS, ids=lambda path: str(path.relative_to(rendering.ROOT)))
def test_code_of_controllers_runs_on_python_310(path):
    verdict = oldest_python(path, "3.10")
    assert verdict.returncode == 0, verdict.stdout


# Vermin takes them for annotations, which nothing evaluates.
@pytest.mark.parametrize(
    "line",
    [
        "Fields = dict[str, int]",
        "from collections.abc import Callable\nHandler = Callable[[int], int]",
        "from collections import deque\nclass Line(deque[int]): pass",
        "import collections\nx = collections.deque[int]()",
        "import asyncio\nx = cast(asyncio.Future[int], y)",
    ],
)
def test_generic_expression_of_python_39_is_found(line):
    assert generic_expressions(line)
    assert not generic_expressions("from typing import Dict\nFields = Dict[str, int]\ndef f(x: dict[str, int]): x[1]")


def generic_expressions(source: str) -> list[str]:
    """Types of the standard library that are given types outside an annotation, which fails before Python 3.9."""
    tree = ast.parse(source)
    types = {"dict", "list", "tuple", "set", "frozenset", "type"}
    annotations: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and re.match(MODULES, node.module):
            types |= {name.name for name in node.names}
        for field in ("annotation", "returns"):
            annotations |= set(ast.walk(getattr(node, field, None) or ast.Pass()))
    subscripts = [node for node in ast.walk(tree) if isinstance(node, ast.Subscript) and node not in annotations]
    values = [ast.unparse(node.value) for node in subscripts]
    return [value for value in values if value in types or re.fullmatch(rf"({MODULES})\.([A-Z]\w*|deque)", value)]


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
