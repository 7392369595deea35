"""What unit tests share: the checkout as the collection ansible_collections.labredes.pbx, and a PostgreSQL server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.plugins.loader import init_plugin_loader

init_plugin_loader([str(Path(__file__).resolve().parents[2] / "collections")])

import records  # noqa: E402  it needs the collection


@pytest.fixture(scope="module")
def server() -> Iterator[records.Server]:
    """A server with the table of call records, one for all tests of a module."""
    made = records.Server()
    yield made
    made.close()
