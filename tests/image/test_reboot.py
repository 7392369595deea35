"""A machine with systemd and podman that is rebooted: the containers come back, as docs/image.md sets it up."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from conftest import ENGINE, NAME, ROOT, SETTINGS, directory, engine

sys.path.insert(0, str(ROOT / "lab"))
import host as lab_host  # noqa: E402  the path has to be set first
import image as lab_image  # noqa: E402

MACHINE = f"{NAME}-machine"
EXCHANGE = "podman exec exchange asterisk -rx 'core waitfullybooted'"


def inside(script: str, seconds: float = 60, check: bool = True) -> str:
    """Run a shell script as root on the machine."""
    done = engine("exec", MACHINE, "sh", "-c", script, check=check, seconds=seconds)
    return done.stdout


@pytest.fixture(scope="module")
def machine(info) -> Iterator[None]:
    """A Debian 12 with podman in a container, on which the demo exchange runs."""
    if ENGINE != "podman":
        pytest.skip("docker starts containers when its daemon starts")
    archive = f"{directory()}/labredes-pbx.tar"
    remove()
    command = lab_host.engine(name := lab_image.image("bookworm"))
    own = [
        "--detach",
        f"--name={MACHINE}",
        "--no-hosts",
        "--stop-timeout=20",
        f"--volume={MACHINE}:/var/lib/containers",
    ]
    subprocess.run([*command, *own, "--cap-add=MKNOD", name, "/sbin/init"], check=True, capture_output=True, timeout=60)
    try:
        lab_host.boot(MACHINE)
        inside("apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
               "podman crun netavark >/dev/null 2>&1", 300)  # fmt: skip
        if SETTINGS.exists():
            engine("cp", str(SETTINGS), f"{MACHINE}:/etc/containers/containers.conf")
        engine("cp", archive, f"{MACHINE}:/var/tmp/image.tar", seconds=120)
        inside("podman load --quiet --input /var/tmp/image.tar && rm /var/tmp/image.tar", 300)
        inside("podman run --detach --name=exchange --restart=unless-stopped --network=host --cgroups=disabled "
               "--env=LABREDES_DEMO=yes localhost/labredes-pbx:latest")  # fmt: skip
        yield
    finally:
        remove()


def remove() -> None:
    engine("rm", "--force", "--time=0", MACHINE, check=False)
    engine("volume", "rm", "--force", MACHINE, check=False)


def reboot() -> None:
    """Shut the machine down and boot it; a health check that failed meanwhile counts as a failed unit there."""
    engine("restart", "-t=30", MACHINE, seconds=120)
    inside("systemctl is-system-running --wait", seconds=90, check=False)


def answers(seconds: float) -> bool:
    """Whether Asterisk takes calls within some seconds."""
    end = time.monotonic() + seconds
    while "fully booted" not in inside(EXCHANGE, check=False):
        if time.monotonic() > end:
            return False
        time.sleep(0.5)
    return True


def test_exchange_comes_back_after_a_reboot(machine):
    assert answers(30), inside("podman logs exchange 2>&1", check=False)
    target = "/etc/systemd/system/podman-restart.service.d"
    inside(f"mkdir -p {target}")
    engine("cp", str(ROOT / "container" / "podman-restart.conf"), f"{MACHINE}:{target}/labredes.conf")
    inside("systemctl daemon-reload && systemctl enable podman-restart.service")
    before = inside("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1")
    reboot()
    assert inside("cat /proc/sys/kernel/random/boot_id; stat -c %Y /proc/1") != before
    assert answers(30), inside("podman ps -a; systemctl status podman-restart --no-pager", check=False)
