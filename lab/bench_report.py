"""Write docs/performance.md and its plot from the figures of `make bench`."""

from __future__ import annotations

import datetime
import os
import pathlib
import platform
import re
from typing import Any

import bench_calls
import bench_host
import image
import jinja2

DOCS = bench_host.ROOT / "docs"
PLOT = "images/performance.svg"
WIDTH = 480  # of the longest bar, in pixels
CALLS = {
    "calls_a_second_udp": "calls a second over UDP",
    "calls_a_second_tls": "calls a second, the caller over TLS",
    "calls_a_second_queue": "calls a second into a queue of 200 agents",
    "milliseconds_a_call_udp": "milliseconds of the processor for a call over UDP",
    "milliseconds_a_call_tls": "the same, the caller over TLS",
    "milliseconds_a_call_queue": "the same, into the queue",
    "registrations_a_second": "registrations a second",
    "megabytes_idle": "memory at start, MiB",
    "megabytes_1000_phones": "memory with 1,000 registered phones, MiB",
}


def machine() -> str:
    """This machine, in a few words."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = int(re.findall(r"MemTotal: +(\d+)", pathlib.Path("/proc/meminfo").read_text())[0]) // 1024**2
    processor = model[1] if model else platform.machine()
    return f"{os.cpu_count()} cores ({processor}), {memory} GiB of memory, Linux {platform.release()}"


def write(figures: dict[str, Any], missed: list[str], suite: str, rounds: int) -> None:
    """Write both files; missed: the names of the figures that miss their limits."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    warm, idle = figures["warm_parts"], figures["no_change_parts"]
    bars = sorted(((name, seconds, idle.get(name, 0)) for name, seconds in warm.items()), key=lambda bar: -bar[1])
    plot = templates.get_template("performance.svg.j2").render(bars=bars, scale=WIDTH / bars[0][1])
    (DOCS / PLOT).write_text(plot)
    text = templates.get_template("performance.md.j2").render(
        **figures,
        figures=figures,
        calls=CALLS,
        phones=len(bench_calls.PHONES),
        compared_rate=bench_calls.COMPARED_RATE,
        compared_rounds=bench_calls.ROUNDS,
        date=datetime.date.today().isoformat(),
        machine=machine(),
        platform=image.RELEASES[suite],
        plot=PLOT,
        rounds=rounds,
        missed=missed,
    )
    (DOCS / "performance.md").write_text(text)
