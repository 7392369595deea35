"""The compose file, run by podman-compose or docker compose."""

from __future__ import annotations

import os
import pathlib
import re
import socket
import sys
from typing import Any

import engine as engines
import yaml
from engine import NAME, engine, remove
from shell import LabError, run

FILE = pathlib.Path(__file__).resolve().parent / "compose.yml"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def content() -> dict[str, Any]:
    """The compose file with the values of the environment, or its own."""
    return yaml.safe_load(filled(FILE.read_text()))


def filled(text: str) -> str:
    """A text of the compose file with the values of the environment, or its own."""
    known = {**os.environ, "LABREDES_NAME": NAME}
    return VARIABLE.sub(lambda found: known.get(found[1]) or found[2], text)


def images() -> dict[str, str]:
    """The image of each service, without its registry and tag."""
    return {
        name: service["image"].rpartition("/")[2].partition(":")[0] for name, service in content()["services"].items()
    }


def volumes() -> list[str]:
    """Every volume with its path, writable, for the container in which the roles run."""
    described = content()
    paths = {
        volume.split(":")[0]: volume.split(":")[1]
        for service in described["services"].values()
        for volume in service.get("volumes", [])
    }
    return [f"{described['volumes'][name]['name']}:{path}" for name, path in paths.items()]


def command() -> list[str]:
    """The program that reads the compose file."""
    if engines.ENGINE == "podman":
        program = pathlib.Path(sys.executable).with_name("podman-compose")
        return [str(program) if program.exists() else "podman-compose", "--in-pod=false", "-f", str(FILE)]
    return [engines.ENGINE, "compose", "-f", str(FILE)]


def up(*services: str) -> None:
    """Start services, or leave them as they are; one of another image is replaced, but the network of all stays."""
    described = content()["services"]
    image = described["pbx"]["image"]
    for name in set(services) - {"network"}:
        container = described[name]["container_name"]
        of = engine("container", "inspect", "--format", "{{.Image}}", container, check=False).stdout.strip()
        wanted = engine("image", "inspect", "--format", "{{.Id}}", described[name]["image"]).stdout.strip()
        if of and of.removeprefix("sha256:") != wanted.removeprefix("sha256:"):
            remove(container, 10)
    network = described["network"]
    running = engine("container", "inspect", "--format", "{{.State.Running}}", network["container_name"], check=False)
    if running.stdout.strip() != "true":
        check_ports(yaml.safe_load(FILE.read_text())["services"]["network"]["ports"])
    hostname = NAME if engines.ENGINE == "podman" else ""
    environment = {**engines.environment(image), "LABREDES_NAME": NAME, "LABREDES_HOSTNAME": hostname}
    run([*command(), "up", "--detach", *services], timeout=180, env=environment)


def check_ports(described: list[str]) -> None:
    """Refuse a port that cannot be published, with what to do; described: the lines of the compose file."""
    for line in described:
        address, ports, _inside = filled(line).rsplit(":", 2)
        kind = line.rpartition("/")[2]
        first, _to, last = ports.partition("-")
        for port in range(int(first), int(last or first) + 1):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe:
                if kind == "tcp":  # a connection that has just ended takes no port
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((address, port))
                except OSError as error:
                    variable = VARIABLE.findall(line)[0][0]
                    raise LabError(
                        f"port {port} ({kind}) of {address} cannot be published ({error.strerror}); stop the program "
                        f"that has it, or set {variable} to another address of this machine"
                    ) from None


def down(data: bool) -> None:
    """Remove the containers, and with `data` the volumes."""
    names = [service["container_name"] for service in content()["services"].values()]
    for name in reversed(names):
        remove(name, 10)
    if data:
        for volume in content()["volumes"].values():
            engine("volume", "rm", "--force", volume["name"], check=False)
    engine("network", "rm", f"{NAME}_default", check=False)
