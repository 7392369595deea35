"""The lab host: a systemd container with its own address and SSH server, like a new VM."""

from __future__ import annotations

import os
import pathlib
import resource
import subprocess
import time

from shell import LabError, log, run

# Memory limit of the host as podman takes it, for example 2g; empty for none.
MEMORY = os.environ.get("LAB_MEMORY", "")
ADMIN = "admin"
LABEL = "labredes.lab"
# What a VM may do and a plain container may not: a firewall (NET_ADMIN), sandboxed units (SYS_ADMIN, and no seccomp
# filter besides systemd's), ping, audited logins, real-time scheduling. Not --privileged, which would let the host
# write the kernel settings of the whole machine.
FLAGS = (
    "--systemd=always",
    *([f"--memory={MEMORY}"] if MEMORY else []),
    *(f"--cap-add={name}" for name in ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "AUDIT_WRITE", "SYS_NICE", "SYS_PTRACE")),
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=label=disable",
    # A new VM forwards no packets; a container would inherit this from a machine that runs containers.
    *(f"--sysctl=net.{family}.conf.all.forwarding=0" for family in ("ipv4", "ipv6")),
)


def limits() -> list[list[str]]:
    """Resource limits to try, best first: podman's defaults, then what this machine allows."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, tasks = resource.getrlimit(resource.RLIMIT_NPROC)
    ceiling = int(pathlib.Path("/proc/sys/kernel/pid_max").read_text())
    tasks = ceiling if tasks == resource.RLIM_INFINITY else min(tasks, ceiling)
    files = 1048576 if files == resource.RLIM_INFINITY else files
    tries = [(files, tasks), (files, min(tasks, 4096)), (min(files, 4096), min(tasks, 4096))]
    return [[], *([f"--ulimit=nofile={min(1024, f)}:{f}", f"--ulimit=nproc={t}:{t}"] for f, t in tries)]


def engine(image: str) -> list[str]:
    """The start of a `podman run` command with the first runtime and limits that work on this machine."""
    error = ""
    for runtime in ([], ["--runtime=crun"], ["--runtime=runc"]):
        for limit in limits():
            command = ["podman", *runtime, "run", "--rm", "--network=none", *FLAGS, *limit, image, "true"]
            tried = run(command, timeout=60, check=False)
            if tried.returncode == 0:
                return ["podman", *runtime, "run", *FLAGS, *limit]
            error = (tried.stderr.strip().splitlines() or [error])[-1]
    raise LabError(f"podman cannot start a container here, with crun or runc: {error}")


def inspect(name: str, form: str) -> str:
    """One property of a container, as a Go template; empty when there is no container of that name."""
    return run(["podman", "container", "inspect", "--format", form, name], check=False).stdout.strip()


def owner(name: str) -> str:
    """The lab directory that a container belongs to; `no lab` for a foreign one, empty when there is none."""
    if not inspect(name, "{{.Id}}"):
        return ""
    return inspect(name, f'{{{{index .Config.Labels "{LABEL}"}}}}') or "no lab"


def owned(directory: pathlib.Path) -> list[str]:
    """The names of the containers that belong to a lab directory."""
    command = ["podman", "ps", "--all", f"--filter=label={LABEL}={directory}", "--format={{.Names}}"]
    return run(command).stdout.split()


def running(name: str) -> bool:
    """Whether a container of this name runs."""
    return inspect(name, "{{.State.Running}}") == "true"


def address(name: str) -> str:
    """The container's own IPv4 address."""
    return inspect(name, "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}")


def gateway(name: str) -> str:
    """The address of this machine as the container sees it."""
    return inspect(name, "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}")


def start(name: str, image: str, directory: pathlib.Path, at: str = "") -> str:
    """Start a new host that accepts the key of `directory` for user admin; returns its address once SSH accepts it.

    at: the address that it shall have, such as that of the host which it replaces.
    """
    begun = time.monotonic()
    command = engine(image)
    names = ["--detach", f"--name={name}", f"--hostname={name}", f"--label={LABEL}={directory}"]
    names += [f"--ip={at}"] if at else []
    run([*command, *names, "--no-hosts", "--stop-timeout=5", image, "/sbin/init"])
    try:
        boot(name)
        inside = f"""
            set -e
            printf '127.0.0.1 localhost\\n127.0.1.1 {name}\\n::1 localhost ip6-localhost\\n' >/etc/hosts
            # The image has no package lists; their date must not look like that of an update to Ansible.
            touch -d @0 /var/lib/apt/lists
            install -d -m 0700 -o {ADMIN} -g {ADMIN} /home/{ADMIN}/.ssh
            install -m 0600 -o {ADMIN} -g {ADMIN} /dev/stdin /home/{ADMIN}/.ssh/authorized_keys
            """
        run(["podman", "exec", "--interactive", name, "sh", "-c", inside], input=(directory / "key.pub").read_text())
        ip_address = address(name)
        wait_for_login(ip_address, directory)
    except BaseException:
        remove(name)
        raise
    log(f"{name} is up at {ip_address} ({time.monotonic() - begun:.0f} s)")
    return ip_address


def boot(name: str, seconds: int = 90) -> None:
    """Wait until systemd has started every unit."""
    state = ""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status = run(["podman", "exec", name, "systemctl", "is-system-running"], timeout=20, check=False)
        state = status.stdout.strip() or status.stderr.strip()
        if state == "running":
            return
        if state == "degraded":
            failed = run(["podman", "exec", name, "systemctl", "--failed", "--no-legend", "--plain"], check=False)
            units = ", ".join(line.split()[0] for line in failed.stdout.splitlines() if line)
            raise LabError(f"{name} has started, but without {units}")
        time.sleep(0.3)
    raise LabError(f"{name} has not started within {seconds} s; its systemd state is {state!r}")


def ssh(ip_address: str, port: int, directory: pathlib.Path) -> list[str]:
    """The command that logs in to a host with the lab's key."""
    return [
        *("ssh", "-F", "none", "-p", str(port), "-i", f"{directory}/key", "-o", "IdentitiesOnly=yes"),
        *("-o", f"UserKnownHostsFile={directory}/known_hosts", "-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR", f"{ADMIN}@{ip_address}"),
    ]


def login(ip_address: str, number: int, directory: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Log in on a port and run sudo, which proves both."""
    return run([*ssh(ip_address, number, directory), "sudo", "-n", "true"], timeout=30, check=False)


def wait_for_login(ip_address: str, directory: pathlib.Path, seconds: int = 60) -> None:
    """Wait until a key login, and sudo in it, works."""
    end = time.monotonic() + seconds
    while (tried := login(ip_address, 22, directory)).returncode:
        if time.monotonic() > end:
            raise LabError(f"SSH on {ip_address} accepts no login after {seconds} s: {tried.stderr.strip()}")
        time.sleep(0.3)


def port(ip_address: str, directory: pathlib.Path) -> int:
    """The port on which SSH accepts the lab's key, the hardened one first.

    Tried by a complete login: a server logs a mere connection as an attack.
    """
    errors: list[str] = []
    for number in (3524, 22):
        tried = login(ip_address, number, directory)
        if tried.returncode == 0:
            return number
        errors += tried.stderr.strip().splitlines()[-1:]
    raise LabError(f"SSH on {ip_address} accepts no login on ports 3524 and 22 ({'; '.join(errors)}); is the host up?")


def reboot(name: str) -> None:
    """Reboot the host, which keeps its address. Raises LabError when it does not come up."""
    ip_address = address(name)
    run(["podman", "exec", name, "systemctl", "reboot"], check=False)
    run(["podman", "wait", name], timeout=60)
    start_again(name, ip_address)


def start_again(name: str, ip_address: str) -> None:
    """Start a host that has ended, with the address that it had. Raises LabError when it does not come up."""
    run(["podman", "network", "disconnect", "podman", name])
    run(["podman", "network", "connect", "--ip", ip_address, "podman", name])
    run(["podman", "start", name])
    boot(name)


def remove(name: str) -> None:
    """Remove the container, whatever its state."""
    run(["podman", "rm", "--force", "--time=5", "--volumes", name], timeout=60, check=False)
