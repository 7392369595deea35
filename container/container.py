#!/usr/bin/env python3
"""Build the exchange as container images, run them, and say where everything is.

Environment: ENGINE (podman or docker), LABREDES_NAME (of the containers), RELEASE, MIRROR, GIT, DEBIAN_MIRROR as for
the lab, SOURCE_DATE_EPOCH. See docs/image.md.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "lab"))

import build  # noqa: E402  they need the path of the lab's modules
import compose  # noqa: E402
import definition  # noqa: E402
import engine as engines  # noqa: E402
import sbom as bill  # noqa: E402
from engine import NAME, engine, remove  # noqa: E402
from shell import LabError, log, perform  # noqa: E402

import inventory  # noqa: E402
import lab  # noqa: E402

MANAGER = f"{NAME}-manager"
# The services that are restarted after their configuration has changed.
READ_AT_START = {"records": "/etc/labredes-cdr", "events": "/etc/labredes-events"}


def image(options: argparse.Namespace) -> None:
    """Build the images, unless they are up to date."""
    build.build(options.dir, options.distribution, options.again)


def describe_exchange(directory: pathlib.Path) -> None:
    """Write the inventory, unless there is one: the default exchange and a phone for browsers."""
    path = directory / "inventory" / "hosts.yml"
    if path.exists():
        return
    defaults = inventory.exchange(secrets.token_hex(16))
    host = {
        **build.connection(MANAGER),
        "labredes_secrets_dir": str(directory / "secrets"),
        "labredes_sip_transports": ["udp", "tcp", "tls", "wss"],
        # Published on this machine alone; the address at which they listen is that of the network of the containers.
        "labredes_ami_bind": "0.0.0.0",
        "labredes_http_bind": "0.0.0.0",
        "labredes_rtp_start": 10000,
        "labredes_rtp_end": 10099,
        "asterisk_ami_users": [
            {
                "name": "lab",
                "read": ["all"],
                "write": ["all"],
                "permit": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"],
            }
        ],
        # A container has neither; those of the machine that runs it apply.
        "firewall_enabled": False,
        "fail2ban_enabled": False,
    }
    content = {
        "all": {"vars": {**build.release(), **defaults}},
        "pbx": {"hosts": {NAME: host}},
        "builders": {},
        "databases": {},
    }
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text("---\n" + json.dumps(content, indent=2) + "\n")
    path.chmod(0o600)
    (directory / "secrets").mkdir(exist_ok=True, mode=0o700)


class Manager:
    """The container in which the roles run: it has all volumes, the network of the others, and Python."""

    def __init__(self, suite: str) -> None:
        self.stage = f"{build.STAGE}:{suite}"

    def __enter__(self) -> Manager:
        remove(MANAGER)
        # The notes on what Asterisk has read stay, with the record of the secrets.
        prepare = "mkdir -p /var/lib/labredes/run; ln -sfn /var/lib/labredes/run /run/labredes; "
        # New volumes belong to those who write there.
        for path, attributes in [item for one in definition.IMAGES for item in one.directories.items()]:
            owner, group, mode = attributes.split()
            prepare += f"install -d -o {owner} -g {group} -m {mode} {path}; "
        prepare += "touch /run/labredes-ready; exec sleep infinity"
        engine(
            *("run", "--detach", f"--name={MANAGER}", "--user=0", f"--network=container:{NAME}-network"),
            *(f"--volume={volume}" for volume in compose.volumes()),
            f"--volume={NAME}-state:/var/lib/labredes",
            *(self.stage, "sh", "-c", prepare),
            image=self.stage,
        )
        while engine("exec", MANAGER, "test", "-e", "/run/labredes-ready", check=False).returncode:
            time.sleep(0.1)
        return self

    def __exit__(self, *_error: object) -> None:
        remove(MANAGER)


def wait_until_healthy(service: str, seconds: float = 60) -> None:
    """Wait until the health check of a container succeeds; LabError with its last words when it has ended."""
    name = NAME if service == "pbx" else f"{NAME}-{service}"
    entry = next(one for one in definition.IMAGES if one.name == compose.images()[service])
    end = time.monotonic() + seconds
    while engine("exec", name, *entry.health, check=False, timeout=20).returncode:
        state = engine("inspect", "--format", "{{.State.Status}}", name, check=False).stdout.strip()
        if time.monotonic() > end or state not in ("running", "created", "configured"):
            words = engine("logs", "--tail=3", name, check=False)
            raise LabError(f"{name} is {state or 'not there'}: {(words.stderr + words.stdout).strip()}")
        time.sleep(0.5)


def up(options: argparse.Namespace) -> None:
    """Build the images, render the configuration, start the containers or have them read what changed, and call."""
    image(options)
    describe_exchange(options.dir)
    compose.up("network", "database")
    wait_until_healthy("database")
    with Manager(options.distribution):
        before = {service: files_of(service) for service in READ_AT_START}
        lab.ansible(options.dir, ROOT / "playbooks" / "image.yml")
        compose.up("records", "pbx", "events")
        for service, files in before.items():
            if files and files != files_of(service):
                engine("restart", "-t=5", f"{NAME}-{service}")
        for service in ("records", "pbx", "events"):
            wait_until_healthy(service)
        lab.ansible(options.dir, ROOT / "playbooks" / "verify.yml")
    known = describe(options)
    host, sip = known["info"]["host"], known["info"]["sip"]
    print(f"\nRegister a softphone at {host} (UDP port {sip['udp']} or TCP port {sip['tcp']}):")
    for number, phone in known["info"]["phones"].items():
        print(f"  user {number}   password {phone['password']}")
    print("Then dial:")
    for line in known["dial"]:
        print(f"  {line['numbers']}   {line['what']}")


def files_of(service: str) -> str:
    """A digest of the configuration of a service; empty before its container is there."""
    command = f"cat {READ_AT_START[service]}/* 2>/dev/null | sha256sum"
    shown = engine("exec", MANAGER, "sh", "-c", command).stdout.split()[0]
    return shown if engine("container", "inspect", f"{NAME}-{service}", check=False).returncode == 0 else ""


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """What lab/connection_details.yml says of the exchange, with the address of the container and its image."""
    with tempfile.TemporaryDirectory(prefix="labredes-info-") as temporary:
        answer = pathlib.Path(temporary) / "info.json"
        output = lab.ansible(
            *(options.dir, ROOT / "lab" / "connection_details.yml", "-e", f"lab_info_file={answer}"),
            *("-e", f"ansible_host={address('8888/tcp')}", "-e", "ansible_connection=local"),
            quiet=True,
        )
        if not answer.exists():
            raise LabError(f"there is no exchange in {options.dir}/inventory; `make image-run` makes one:\n{output}")
        # What listens on every address of the containers is reached at theirs, or where AMI and ARI are published.
        described = json.loads(answer.read_text().replace("0.0.0.0", address("8088/tcp")))
    sip = {"udp": None, "tcp": None, **described["info"].pop("sip")}
    described["info"] = {"host": address(), "image": running_image(), "sip": sip, **described["info"]}
    return described


def address(port: str = "5060/udp") -> str:
    """The address at which this machine reaches a port of the containers: their own, or where it is published."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    shown = engine("container", "inspect", "--format", form, f"{NAME}-network", check=False)
    if shown.returncode:
        raise LabError(f"there is no container {NAME}-network; `make image-run` starts it")
    own = shown.stdout.strip()
    if own and reachable(own):
        return own
    lines = compose.content()["services"]["network"]["ports"]
    published = next(line for line in lines if line.endswith(f":{port}")).split(":")[0]
    return "127.0.0.1" if published == "0.0.0.0" else published


def reachable(own: str) -> bool:
    """Whether this machine has a route of its own to the network of the containers.

    podman as an ordinary user has none; the same route then leads to a network that root's podman has of this address.
    """
    if os.geteuid() and engines.ENGINE == "podman":
        return False
    shown = subprocess.run(["ip", "-4", "route", "get", own], capture_output=True, text=True, check=False)
    return shown.returncode == 0 and " via " not in shown.stdout


def running_image() -> dict[str, Any]:
    """Name, size in bytes and digest of the image of the running container, and the container's name."""
    shown = engine("container", "inspect", NAME, check=False)
    if shown.returncode:
        raise LabError(f"there is no container {NAME}; `make image-run` starts it")
    container = json.loads(shown.stdout)[0]
    known = build.inspect(container["Image"])
    digest = known.get("Digest") or known["Id"]
    name = container.get("ImageName") or container["Config"]["Image"]
    return {"name": name, "size": known["Size"], "digest": digest, "container": NAME}


def info(options: argparse.Namespace) -> None:
    """Print addresses, ports, users and passwords of the running container as one JSON object."""
    print(json.dumps(describe(options)["info"], indent=2))


def sbom(options: argparse.Namespace) -> None:
    """Write the list of what each image holds (SBOM, CycloneDX) beside its archive."""
    for entry in definition.IMAGES:
        bill.write(options.dir, f"{build.REPOSITORY}{entry.name}:latest", entry.name)


def down(options: argparse.Namespace) -> None:
    """Remove the containers; with --volumes also their data, the inventory and the secrets."""
    remove(MANAGER)
    compose.down(options.volumes)
    if options.volumes:
        engine("volume", "rm", "--force", f"{NAME}-state", check=False)
        for name in ("inventory", "secrets"):
            subprocess.run(["rm", "-rf", options.dir / name], check=True)
    log(f"{NAME} is removed")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for action in (image, up, info, sbom, down):
        command = commands.add_parser(action.__name__, help=action.__doc__, description=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(".image"), help="inventory and archives")
        if action in (image, up):
            command.add_argument("--distribution", choices=definition.SUITES, default="bullseye")
            command.add_argument("--again", action="store_true", help="build the images although they are up to date")
        if action is down:
            command.add_argument("--volumes", action="store_true", help="remove the data, inventory and secrets too")
    return parser.parse_args(words)


def main() -> None:
    """Run the command of the command line."""
    options = parse()
    perform(options, "using this exchange", alone=options.action is not info)


if __name__ == "__main__":
    main()
