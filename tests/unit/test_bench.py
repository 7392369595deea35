"""The bench fails where a limit is missed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lab"))
import bench  # noqa: E402  it lies beside the lab's other files

CALLS = list(bench.bench_report.CALLS)
FIGURES = [
    *(
        f"{name}{end}"
        for name in (
            "cold_ratio",
            "warm_ratio",
            "warm_of_cold",
            "further_host_ratio",
            "no_change_seconds",
            "phone_change_seconds",
        )
        for end in ("", "_at_most")
    ),
    "cold_seconds",
    "cold_script_seconds",
    "warm_seconds",
    "warm_distribution_seconds",
    "no_change_tasks",
    "no_change_round_trips",
    "version",
    "distribution_version",
    *CALLS,
    *(f"distribution_{name}" for name in CALLS),
    *(f"{name}_ratio{end}" for name in CALLS if "milliseconds" in name for end in ("", "_at_most")),
]


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"ratio": 1.25, "ratio_at_most": 1.25, "rate": 9.5, "rate_at_least": 9.5, "release": "18.2.0"}, []),
        ({"ratio": 1.26, "ratio_at_most": 1.25, "rate": 9.6, "rate_at_least": 9.5}, ["ratio"]),
        ({"lost": 1, "lost_at_most": 0, "rate": 9.4, "rate_at_least": 9.5}, ["lost", "rate"]),
        ({"cost": None, "cost_at_most": 9.5, "price": 9.5, "price_at_most": None}, ["cost", "price"]),
    ],
)
def test_missed_limit_is_named_and_fails_the_bench(figures, missed, monkeypatch, capsys):
    monkeypatch.setattr(bench, "measure", lambda parts, rounds, suite: figures)
    monkeypatch.setattr(sys, "argv", ["bench.py", "calls"])
    if missed:
        with pytest.raises(bench.LabError, match=", ".join(missed)):
            bench.main()
    else:
        bench.main()
    assert json.loads(capsys.readouterr().out) == figures


@pytest.mark.parametrize(
    ("bearable", "begin", "found", "restarts"), [(100, 40, 98, 2), (30, 40, 25, 4), (0, 40, 0, 12), (40, 40, 40, 2)]
)
def test_highest_rate_is_found_from_any_beginning(bearable, begin, found, restarts):
    restarted = []

    def measured(rate):
        return 100, 0 if rate <= bearable else 2

    assert bench.bench_calls.most("calls", begin, measured, lambda: restarted.append(1)) == found
    assert len(restarted) == restarts


def test_rate_that_fails_once_is_tried_again():
    lost = iter([9, 0, 0, 9, 9])
    assert bench.bench_calls.most("calls", 40, lambda rate: (100, next(lost)), lambda: None) == 50


@pytest.mark.parametrize(("last", "lost"), [("00:00:03", 0), ("00:00:04", 20)])
def test_calls_that_begin_late_have_failed(last, lost, tmp_path, monkeypatch):
    """A rate that SIPp cannot keep up with is not reached, though every call succeeds."""
    load = bench.bench_calls.Load.__new__(bench.bench_calls.Load)
    load.work = tmp_path
    counted = [("00:00:01", 40, 0), ("00:00:02", 80, 40), (last, 100, 80), ("00:00:05", 100, 100)]
    lines = ["ElapsedTime(C);TotalCallCreated;SuccessfulCall(C)", *(";".join(map(str, row)) for row in counted)]
    monkeypatch.setattr(
        bench.bench_calls, "run", lambda *_words, **_: (tmp_path / "callers.csv").write_text("\n".join(lines))
    )
    assert load.counted(["sipp"], 100, 50) == (100, lost)


@pytest.mark.parametrize(
    ("lost", "cost", "ratio", "rounds"),
    [([1] * 8, 8.0, 1.25, 8), ([2] * 8, None, None, 1), ([0, 1, 2, 0, 0, 0, 0, 0], None, None, 3)],
)
def test_costs_are_compared_by_rounds_of_good_calls(lost, cost, ratio, rounds):
    class Load(bench.bench_calls.Load):
        def __init__(self, costs, lost):
            self.name, self.failing, self.used = "pbx", set(), 0.0
            self.costs, self.lost = list(costs), list(lost)

        def cost(self):
            return self.used, 80.0

        def calls(self, kind, rate, seconds):
            lost = self.lost.pop(0)
            self.used += self.costs.pop(0) * (100 - lost) / 1000
            return 100, lost

    # The first round warms up; the median of the ratios is not the ratio of the medians.
    ours, theirs = Load([90, 5, 10, 10, 10, 5, 5, 5], [0] * 8), Load([1, 4, 8, 8, 8, 8, 8, 8], lost)
    figures = bench.bench_calls.costs("udp", ours, theirs)
    name = "milliseconds_a_call_udp"
    assert figures[name] == 5.0 and figures[f"distribution_{name}"] == cost
    assert figures[f"{name}_ratio"] == ratio
    assert len(theirs.costs) == 8 - rounds and not ours.costs


def test_rounds_change_their_order_and_are_compared_by_pairs():
    order = []

    def ours():
        order.append("ours")
        return {"seconds": 3.0}

    def theirs():
        order.append("theirs")
        return 2.0

    found = bench.bench_install.rounds_of(3, ours, theirs)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found["ratios"] == [1.5] * 3


@pytest.mark.parametrize("missed", [[], ["warm_ratio"]])
def test_report_has_each_figure_and_says_what_is_missed(missed, monkeypatch, tmp_path):
    figures = dict.fromkeys(FIGURES, 7)
    figures |= dict.fromkeys(["distribution_milliseconds_a_call_udp", "milliseconds_a_call_udp_ratio"])
    figures |= {"warm_parts": {"system": 6.0, "pbx": 2.0}, "no_change_parts": {"pbx": 1.5}}
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(bench.bench_report, "DOCS", tmp_path)
    bench.bench_report.write(figures, missed, "bullseye", 3)
    text = (tmp_path / "performance.md").read_text()
    assert "calls a second over UDP | 7 | 7 |  |  |" in text and "medians of 3 rounds" in text
    assert (
        "for a call over UDP | 7 | more than 1 % failed |  | 7 |" in text and "into the queue | 7 | 7 | 7 | 7 |" in text
    )
    assert ("whose comparison failed: warm ratio." in text) == bool(missed)
    bars = ElementTree.parse(tmp_path / "images/performance.svg").findall(".//{*}rect")
    assert [bar.get("width") for bar in bars[-4:]] == ["480.0", "0.0", "160.0", "120.0"]
