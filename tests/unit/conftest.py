"""What unit tests share: the checkout as a collection, runs of its modules, and a PostgreSQL server."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.parameters import PASS_VARS
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.loader import init_plugin_loader

init_plugin_loader([str(Path(__file__).resolve().parents[2] / "collections")])

import records  # noqa: E402  it needs the collection


@pytest.fixture(scope="module")
def server() -> Iterator[records.Server]:
    """A server with the table of call records, one for all tests of a module."""
    made = records.Server()
    yield made
    made.close()


@pytest.fixture
def run_module(tmp_path, monkeypatch, capsys) -> Callable[..., dict]:
    """A function that runs a module of the collection in this process, with options, and gives its answer."""

    def run(module: ModuleType, check: bool = False, **options: object) -> dict:
        arguments = {"_ansible_check_mode": check, "_ansible_remote_tmp": str(tmp_path), **options}
        if "inject_invocation" in PASS_VARS:  # since ansible-core 2.21, before which every answer has it
            arguments["_ansible_inject_invocation"] = True
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)  # since ansible-core 2.19
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", to_bytes(json.dumps({"ANSIBLE_MODULE_ARGS": arguments})))
        umask = os.umask(0o022)
        try:
            with pytest.raises(SystemExit):
                module.main()
        finally:
            os.umask(umask)
        return json.loads(capsys.readouterr().out)

    return run
