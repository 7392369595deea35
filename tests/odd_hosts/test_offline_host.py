"""An exchange is set up from an offline kit, with the commands of docs/offline.md. `make odd-hosts`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import odd_host
import pytest

COMMANDS = re.compile(r"^    (.+)$", re.MULTILINE)
# A port of this controller that nothing listens on.
NO_PROXY = "http://127.0.0.1:9"


@pytest.fixture(name="host", scope="module")
def fixture_host():
    """A new host, for which this controller keeps the package."""
    with odd_host.made("offline-kit") as host:
        host.play("--tags", "package")
        yield host


@pytest.fixture(name="home", scope="module")
def fixture_home(host):
    """The home of an administrator who has the kit and reaches nothing but the host."""
    # A short path: ssh puts a socket below it.
    with tempfile.TemporaryDirectory(prefix="kit-") as directory:
        home = Path(directory)
        kit = home / "labredes-pbx-offline-kit"
        words = ["make", "bundle", f"INVENTORY={host.directory}/inventory", f"BUNDLE={kit}"]
        subprocess.run(words, cwd=odd_host.ROOT, check=True, capture_output=True, timeout=600)
        inventory = host.inventory()
        del inventory["all"]["vars"]["asterisk_package_mirror"]
        (kit / "inventory").mkdir()
        (kit / "inventory/hosts.yml").write_text(json.dumps(inventory))
        yield home


def run(home: Path, commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run commands as that administrator, without the settings of this checkout."""
    own = ("ANSIBLE_", "PIP_", "XDG_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    nothing = dict.fromkeys(("http_proxy", "https_proxy"), NO_PROXY)
    return subprocess.run(
        ["sh", "-ec", "\n".join(commands)],
        cwd=home,
        env={**kept, **nothing, "HOME": str(home), "PATH": path},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def commands() -> list[str]:
    """The commands of the documentation, from the directory above the kit."""
    return COMMANDS.findall((odd_host.ROOT / "docs/offline.md").read_text().partition("## Run from it")[2])


def test_host_is_set_up_from_the_kit_alone(home):
    done = run(home, commands())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "a call went through over" in " ".join(done.stdout.split())


def test_second_run_from_the_kit_changes_nothing(home):
    enter, *_, play = commands()
    done = run(home, [enter, play])
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}, odd_host.CHANGED.findall(done.stdout)
