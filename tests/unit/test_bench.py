"""The bench fails where a limit is missed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))
import bench  # noqa: E402  it lies beside the lab's other files


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"ratio": 1.25, "ratio_at_most": 1.25, "rate": 9.5, "rate_at_least": 9.5, "release": "18.2.0"}, []),
        ({"ratio": 1.26, "ratio_at_most": 1.25, "rate": 9.6, "rate_at_least": 9.5}, ["ratio"]),
        ({"lost": 1, "lost_at_most": 0, "rate": 9.4, "rate_at_least": 9.5}, ["lost", "rate"]),
    ],
)
def test_missed_limit_is_named_and_fails_the_bench(figures, missed, monkeypatch, capsys):
    monkeypatch.setattr(bench.bench_calls, "measure", lambda directory: figures)
    monkeypatch.setattr(sys, "argv", ["bench.py", "calls"])
    if missed:
        with pytest.raises(bench.LabError, match=", ".join(missed)):
            bench.main()
    else:
        bench.main()
    assert json.loads(capsys.readouterr().out) == figures
