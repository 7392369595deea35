"""The lab host: a systemd container with an address of its own, reached over real SSH like a new VM."""

from __future__ import annotations

import pathlib
import resource
import subprocess
import time

from shell import LabError, run, say

ADMIN = "admin"
LABEL = "labredes.lab"
# What a VM may do and a plain container may not: its own firewall (NET_ADMIN), units in sandboxes of their
# own (SYS_ADMIN, and no filter of system calls above systemd's), ping, audited logins, real-time scheduling.
# Not --privileged: /proc/sys is the whole machine's.
FLAGS = (
    "--systemd=always",
    *(f"--cap-add={name}" for name in ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "AUDIT_WRITE", "SYS_NICE", "SYS_PTRACE")),
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=label=disable",
)


def limits() -> list[list[str]]:
    """Resource limits to try, best first: podman's own, then what this machine can give."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, tasks = resource.getrlimit(resource.RLIMIT_NPROC)
    ceiling = int(pathlib.Path("/proc/sys/kernel/pid_max").read_text())
    tasks = ceiling if tasks == resource.RLIM_INFINITY else min(tasks, ceiling)
    files = 1048576 if files == resource.RLIM_INFINITY else files
    tries = [(files, tasks), (files, min(tasks, 4096)), (min(files, 4096), min(tasks, 4096))]
    return [[], *([f"--ulimit=nofile={min(1024, f)}:{f}", f"--ulimit=nproc={t}:{t}"] for f, t in tries)]


def engine(image: str) -> list[str]:
    """The way to run a container that works on this machine, found by trying: [runtime flags, limits]."""
    told = ""
    for runtime in ([], ["--runtime=crun"], ["--runtime=runc"]):
        for limit in limits():
            command = ["podman", *runtime, "run", "--rm", "--network=none", *FLAGS, *limit, image, "true"]
            tried = run(command, timeout=60, check=False)
            if tried.returncode == 0:
                return ["podman", *runtime, "run", *FLAGS, *limit]
            told = (tried.stderr.strip().splitlines() or [told])[-1]
    raise LabError(f"podman cannot start a container here, with crun or runc: {told}")


def inspect(name: str, form: str) -> str:
    """One fact about a container, empty when there is none of that name."""
    return run(["podman", "container", "inspect", "--format", form, name], check=False).stdout.strip()


def owner(name: str) -> str:
    """What made the container of this name: a lab's directory, `no lab`, or empty when there is none."""
    if not inspect(name, "{{.Id}}"):
        return ""
    return inspect(name, f'{{{{index .Config.Labels "{LABEL}"}}}}') or "no lab"


def running(name: str) -> bool:
    """Whether a container of this name runs."""
    return inspect(name, "{{.State.Running}}") == "true"


def address(name: str) -> str:
    """The container's own IPv4 address."""
    return inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")


def gateway(name: str) -> str:
    """The address from which this machine reaches the container."""
    return inspect(name, "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")


def start(name: str, image: str, room: pathlib.Path) -> str:
    """Start a new host that lets the key of `room` in as admin; gives its address once SSH lets us in."""
    begun = time.monotonic()
    command = engine(image)
    names = ["--detach", f"--name={name}", f"--hostname={name}", f"--label={LABEL}={room}"]
    run([*command, *names, "--no-hosts", "--stop-timeout=5", image, "/sbin/init"])
    try:
        boot(name)
        inside = f"""
            set -e
            printf '127.0.0.1 localhost\\n127.0.1.1 {name}\\n::1 localhost ip6-localhost\\n' >/etc/hosts
            # The image's list of packages is empty; Ansible must not take its date for that of an update.
            touch -d @0 /var/lib/apt/lists
            install -d -m 0700 -o {ADMIN} -g {ADMIN} /home/{ADMIN}/.ssh
            install -m 0600 -o {ADMIN} -g {ADMIN} /dev/stdin /home/{ADMIN}/.ssh/authorized_keys
            """
        run(["podman", "exec", "--interactive", name, "sh", "-c", inside], input=(room / "key.pub").read_text())
        where = address(name)
        admit(where, room)
    except BaseException:
        remove(name)
        raise
    say(f"{name} is up at {where} ({time.monotonic() - begun:.0f} s)")
    return where


def boot(name: str, seconds: int = 90) -> None:
    """Wait until systemd has started every unit."""
    state = "nothing"
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        asked = run(["podman", "exec", name, "systemctl", "is-system-running"], timeout=20, check=False)
        state = asked.stdout.strip() or asked.stderr.strip()
        if state == "running":
            return
        if state == "degraded":
            failed = run(["podman", "exec", name, "systemctl", "--failed", "--no-legend", "--plain"], check=False)
            units = ", ".join(line.split()[0] for line in failed.stdout.splitlines() if line)
            raise LabError(f"{name} has started, but without {units}")
        time.sleep(0.3)
    raise LabError(f"{name} has not started within {seconds} s; systemd says {state!r}")


def ssh(where: str, port: int, room: pathlib.Path) -> list[str]:
    """The command that logs in to a host with the lab's key."""
    return [
        *("ssh", "-F", "none", "-p", str(port), "-i", f"{room}/key", "-o", "IdentitiesOnly=yes"),
        *("-o", f"UserKnownHostsFile={room}/known_hosts", "-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", f"{ADMIN}@{where}"),
    ]


def login(where: str, number: int, room: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Log in on a port and use sudo, as a proof of both."""
    return run([*ssh(where, number, room), "sudo", "-n", "true"], timeout=30, check=False)


def admit(where: str, room: pathlib.Path, seconds: int = 60) -> None:
    """Wait until a key login, and sudo in it, works."""
    end = time.monotonic() + seconds
    while (tried := login(where, 22, room)).returncode:
        if time.monotonic() > end:
            raise LabError(f"{where} lets nobody in over SSH after {seconds} s: {tried.stderr.strip()}")
        time.sleep(0.3)


def port(where: str, room: pathlib.Path) -> int:
    """The port on which SSH lets us in, the hardened one first.

    A whole login, because a server writes a bare connection down as an attack.
    """
    told = []
    for number in (3524, 22):
        tried = login(where, number, room)
        if tried.returncode == 0:
            return number
        told += tried.stderr.strip().splitlines()[-1:]
    raise LabError(f"{where} lets nobody in over SSH on ports 3524 and 22 ({'; '.join(told)}); is the host up?")


def reboot(name: str) -> None:
    """Boot the host anew as `systemctl reboot` would; it keeps its address. Raises LabError when it does not come up."""
    where = address(name)
    run(["podman", "exec", name, "systemctl", "reboot"], check=False)
    run(["podman", "wait", name], timeout=60)
    run(["podman", "network", "disconnect", "podman", name])
    run(["podman", "network", "connect", "--ip", where, "podman", name])
    run(["podman", "start", name])
    boot(name)


def remove(name: str) -> None:
    """Remove the container, whatever its state."""
    run(["podman", "rm", "--force", "--time=5", "--volumes", name], timeout=60, check=False)
