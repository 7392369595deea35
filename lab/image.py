"""The image of a new VM: Debian with systemd and an SSH server, built once from Debian's packages."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import tempfile

import debian_mirror
from shell import CACHE, LabError, lock, log, run

RELEASES = {"bullseye": "Debian 11", "bookworm": "Debian 12", "trixie": "Debian 13"}
REPOSITORY = "localhost/labredes-lab"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "python3-apt"),
    *("ca-certificates", "iproute2", "iputils-ping", "procps", "netbase", "tzdata", "less", "kmod"),
)
# Like a cloud image: an ordinary user with sudo and no password, a UTF-8 locale, and no SSH host keys but a unit that
# generates them at the first boot (keys in the image would be the same on every host).
SETUP = r"""#!/bin/sh
set -eu
root="$1"
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo admin
echo 'admin ALL=(ALL) NOPASSWD:ALL' >"$root/etc/sudoers.d/90-admin"
chmod 0440 "$root/etc/sudoers.d/90-admin"
rm -f "$root"/etc/ssh/ssh_host_*
cat >"$root/etc/systemd/system/ssh-host-keys.service" <<'UNIT'
[Unit]
Description=Generate the SSH host keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
UNIT
# A VM may change its network settings, which a container has for itself too.
cat >"$root/etc/systemd/system/own-network-settings.service" <<'UNIT'
[Unit]
Description=Make the network settings of this host writable
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
    """The name of the image for a suite; builds it when there is none of exactly this definition."""
    lines = debian_mirror.sources(suite)
    settings = [*debian_mirror.settings(), 'Acquire::Retries "3";']
    definition = "\n".join([suite, *PACKAGES, SETUP, *lines, *settings])
    name = f"{REPOSITORY}:{suite}-{hashlib.sha256(definition.encode()).hexdigest()[:12]}"
    with lock(CACHE / "image.lock", "building the image"):
        if run(["podman", "image", "exists", name], check=False).returncode:
            build(name, suite, lines, settings)
    return name


def build(name: str, suite: str, lines: list[str], settings: list[str]) -> None:
    """Build the image; takes about half a minute and 300 MB of disk."""
    log(f"building the {RELEASES[suite]} image (about 30 s, once)")
    with tempfile.TemporaryDirectory(prefix="labredes-image-") as temporary:
        directory = pathlib.Path(temporary)
        directory.chmod(0o755)
        (directory / "setup").write_text(SETUP)
        (directory / "setup").chmod(0o755)
        (directory / "sources.list").write_text("\n".join(lines) + "\n")
        command: list[str | pathlib.Path] = [
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            # An interrupted build is discarded, so it need not sync each file to the disk.
            *(f"--aptopt={setting}" for setting in settings),
            "--dpkgopt=force-unsafe-io",
            f"--customize-hook={directory}/setup",
            *(suite, "-", directory / "sources.list"),
        ]
        # Piped from one command to the other; named once both have succeeded.
        with (
            (directory / "errors").open("w+") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as bootstrap,
        ):
            imported = run(["podman", "import", "--quiet", "-"], timeout=900, check=False, stdin=bootstrap.stdout)
        if bootstrap.returncode or imported.returncode:
            output = (directory / "errors").read_text() + imported.stderr
            raise LabError(
                f"the {RELEASES[suite]} image could not be built:\n" + "\n".join(output.strip().splitlines()[-8:])
            )
        run(["podman", "tag", imported.stdout.strip(), name])
