"""Three exchanges in one inventory, of two distributions.

One dies in the middle of their first run; later the two of one distribution are upgraded, the first of them first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site"), str(ROOT / "tests/tools")]
import builds  # noqa: E402  the path has to be set first
import host  # noqa: E402
import playbook  # noqa: E402
from shell import run as run_command  # noqa: E402

import lab as lab_command  # noqa: E402

DIRECTORY = ROOT / ".lab/fleet"
FIRST, SECOND, DYING = NAMES = ["pbx-fleet", "pbx-fleet-2", "pbx-fleet-3"]
DIES_AT = "TASK [labredes.pbx.asterisk : Install the package, unless this version is installed]"


def recap(output: str) -> dict[str, dict[str, int]]:
    """The numbers of each host at the end of a run."""
    lines = re.findall(r"^(pbx-\S+) +: (ok=.*)$", output, re.MULTILINE)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line)} for name, line in lines}


def built(output: str) -> list[str]:
    """The hosts that have compiled Asterisk."""
    return sorted(set(re.findall(r"^ +(pbx-\S+): step \d of \d: compile", output, re.MULTILINE)))


@pytest.fixture(scope="module", autouse=True)
def address() -> Iterator[str]:
    """Three bare hosts; gives the address of the one that will die."""
    words = ["--dir", str(DIRECTORY), "--name", FIRST]
    lab_command.create(lab_command.parse(["create", *words, "--hosts", "3", "--distribution", "bullseye", "bookworm"]))
    yield host.address(DYING)
    lab_command.remove(lab_command.parse(["down", *words]))


@pytest.fixture(scope="module")
def first_run(address) -> str:
    """The output of the first run, in whose middle the third host loses its power."""
    lines = []
    with subprocess.Popen(
        **playbook.prepared(DIRECTORY), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as run:
        for line in run.stdout:
            lines.append(line)
            if line.startswith(DIES_AT):
                run_command(["podman", "kill", DYING])
    output = "".join(lines)
    assert DIES_AT in output, output[-3000:]
    assert run.returncode, "a run with a host that died has succeeded"
    return output


@pytest.fixture(scope="module")
def second_run(first_run, address) -> subprocess.CompletedProcess[str]:
    """The next run, with the third host switched on again."""
    host.start_again(DYING, address)
    return playbook.play(DIRECTORY, seconds=900)


def test_host_that_dies_stops_no_other(first_run):
    found = recap(first_run)
    assert found[DYING]["unreachable"] == 1
    for name in (FIRST, SECOND):
        assert found[name]["failed"] == found[name]["unreachable"] == 0, first_run[-3000:]


def test_one_host_of_each_kind_compiles_at_most(first_run):
    assert len(built(first_run)) <= 2, built(first_run)


def test_next_run_completes_the_host_that_died(second_run):
    assert second_run.returncode == 0, second_run.stdout[-3000:]
    found = recap(second_run.stdout)
    assert found[DYING]["changed"] and not found[DYING]["failed"]
    assert [found[name]["changed"] for name in (FIRST, SECOND)] == [0, 0], second_run.stdout[-3000:]
    assert not built(second_run.stdout)


def test_each_host_takes_calls(second_run):
    done = playbook.play(DIRECTORY, playbook="playbooks/verify.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(recap(done.stdout)) >= set(NAMES)


def state(name: str) -> str:
    """Package and process of Asterisk on a host, and whether an upgrade was there."""
    look = "dpkg-query -W labredes-asterisk; systemctl show asterisk --property=MainPID; ls /var/lib/labredes/upgrade"
    return run_command(["podman", "exec", name, "sh", "-c", f"{look} 2>&1 || true"]).stdout


def upgrade(build: str, place: Path, **more: object) -> tuple[subprocess.CompletedProcess[str], str, str]:
    """An upgrade of the two hosts on Debian 11 to another build; gives the run, and the versions before and after."""
    query = ["dpkg-query", "--show", "--showformat=${Version}", "labredes-asterisk"]
    version = run_command(["podman", "exec", FIRST, *query]).stdout
    package, changed = builds.other(build, version, place)
    variables = json.dumps({"asterisk_deb": str(package), "asterisk_deb_version": changed, **more})
    words = ["--limit", f"{FIRST},{DYING}", "-e", variables]
    return playbook.play(DIRECTORY, *words, playbook="playbooks/upgrade_asterisk.yml", seconds=600), version, changed


def test_build_that_fails_stops_at_the_first_host(second_run, tmp_path):
    """It goes back, and the next one is untouched."""
    before = state(DYING)
    done, version, changed = upgrade("ending", tmp_path)
    said = " ".join(done.stdout.split())
    assert done.returncode and f"{FIRST}: the upgrade to Asterisk {changed} has failed (" in said, done.stdout[-3000:]
    assert f"and the exchange runs {version} again" in said
    assert version in state(FIRST) and state(DYING) == before
    done = playbook.play(DIRECTORY, "--limit", f"{FIRST},{DYING}", playbook="playbooks/verify.yml")
    assert done.returncode == 0, done.stdout[-3000:]


def test_others_follow_when_the_first_host_has_passed(second_run, tmp_path):
    done, _, changed = upgrade("second", tmp_path, asterisk_upgrade_serial="1,100%")
    assert done.returncode == 0, done.stdout[-3000:]
    passed = done.stdout.index(f"{FIRST}: Asterisk {changed} runs instead of")
    turns = [found.start() for found in re.finditer(r"TASK \[Stop behind an exchange that has failed", done.stdout)]
    assert len(turns) == 2 and turns[0] < passed < turns[1]
    assert changed in state(FIRST) and changed in state(DYING)
