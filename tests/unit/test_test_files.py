"""Files of tests, which `make test` collects together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_file_of_tests_has_a_name_of_its_own():
    files = [*ROOT.glob("tests/*/test_*.py"), *ROOT.glob("apir_py/tests/test_*.py")]
    assert len(files) > 100
    assert [name for name, count in Counter(file.name for file in files).items() if count > 1] == []
