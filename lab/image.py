"""The image of a new VM: a Debian with systemd and an SSH server, made once from Debian's packages."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import tempfile

import debian
from shell import CACHE, LabError, alone, run, say

RELEASES = {"bullseye": "Debian 11", "bookworm": "Debian 12"}
REPOSITORY = "localhost/labredes-lab"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "python3-apt"),
    *("ca-certificates", "iproute2", "iputils-ping", "procps", "netbase", "tzdata", "less", "kmod"),
)
# What a cloud's installer leaves: an ordinary user with sudo, no password, no host keys but a unit
# that makes them at the first start (keys made here would be the same on every host), a UTF-8 locale.
RECIPE = r"""#!/bin/sh
set -eu
root="$1"
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo admin
echo 'admin ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/90-admin"
chmod 0440 "$root/etc/sudoers.d/90-admin"
rm -f "$root"/etc/ssh/ssh_host_*
cat >"$root/etc/systemd/system/ssh-host-keys.service" <<'UNIT'
[Unit]
Description=Make this host's own SSH keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
UNIT
# Network settings are a container's own, and a VM may change its own.
cat >"$root/etc/systemd/system/own-network-settings.service" <<'UNIT'
[Unit]
Description=Let this host change its own network settings
DefaultDependencies=no
Before=systemd-sysctl.service
[Service]
Type=oneshot
ExecStart=/bin/mount --bind /proc/sys/net /proc/sys/net
ExecStart=/bin/mount -o remount,bind,rw /proc/sys/net
[Install]
WantedBy=sysinit.target
UNIT
chroot "$root" systemctl enable --quiet own-network-settings.service ssh-host-keys.service ssh.service
echo 'LANG=C.UTF-8' >"$root/etc/default/locale"
rm "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
mv "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mirror"
mv "$root/etc/apt/sources.list.d/0000sources.list" "$root/etc/apt/sources.list"
"""


def image(suite: str) -> str:
    """The name of the image for a suite; makes it when there is none of just this definition."""
    lines = debian.sources(suite)
    settings = [*debian.settings(), 'Acquire::Retries "3";']
    definition = "\n".join([suite, *PACKAGES, RECIPE, *lines, *settings])
    name = f"{REPOSITORY}:{suite}-{hashlib.sha256(definition.encode()).hexdigest()[:12]}"
    with alone(CACHE / "image.lock", "making the image"):
        if run(["podman", "image", "exists", name], check=False).returncode:
            make(name, suite, lines, settings)
    return name


def make(name: str, suite: str, lines: list[str], settings: list[str]) -> None:
    """Make the image; takes about half a minute and 300 MB of disk."""
    say(f"making the {RELEASES[suite]} image (about 30 s, once)")
    with tempfile.TemporaryDirectory(prefix="labredes-image-") as room:
        place = pathlib.Path(room)
        place.chmod(0o755)
        (place / "recipe").write_text(RECIPE)
        (place / "recipe").chmod(0o755)
        (place / "sources.list").write_text("\n".join(lines) + "\n")
        command = [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            # What is cut short is thrown away whole: no need to wait for the disk after each file.
            *(f"--aptopt={setting}" for setting in settings),
            "--dpkgopt=force-unsafe-io",
            f"--customize-hook={place}/recipe",
            *(suite, "-", place / "sources.list"),
        ]
        # Straight from one into the other; it gets its name when both have done their part.
        with (
            (place / "told").open("w+") as told,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=told) as made,
        ):
            imported = run(["podman", "import", "--quiet", "-"], timeout=900, check=False, stdin=made.stdout)
        if made.returncode or imported.returncode:
            said = (place / "told").read_text() + imported.stderr
            raise LabError(
                f"the {RELEASES[suite]} image could not be made:\n" + "\n".join(said.strip().splitlines()[-8:])
            )
        run(["podman", "tag", imported.stdout.strip(), name])
