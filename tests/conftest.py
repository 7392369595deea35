"""Spreads the tests over two processes: those of the lab host, one after the other, and beside them all others."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

LAB = "tests/site/"


class OneLabHost(LoadScopeScheduling):
    """A process takes the next file whole, or all files that share the lab host."""

    def _split_scope(self, nodeid: str) -> str:
        return LAB if nodeid.startswith(LAB) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    """Used where pytest runs with --numprocesses."""
    return OneLabHost(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Begin with the lab host, whose tests take longest, where they run beside others."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not item.nodeid.startswith(LAB))
