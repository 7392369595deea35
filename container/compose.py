"""The compose file, run by podman-compose or docker compose."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from typing import Any

import engine as engines
import yaml
from engine import NAME, engine
from shell import LabError, run

FILE = pathlib.Path(__file__).resolve().parent / "compose.yml"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def content() -> dict[str, Any]:
    """The compose file with its default values."""
    known = {"LABREDES_NAME": NAME}
    text = VARIABLE.sub(lambda found: known.get(found[1], found[2]), FILE.read_text())
    return yaml.safe_load(text)


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
            engine("rm", "--force", "--time=10", container, timeout=60)
    environment = {**engines.environment(image), "LABREDES_NAME": NAME}
    run([*command(), "up", "--detach", *services], timeout=180, env=environment)


def down(data: bool) -> None:
    """Remove the containers, and with `data` the volumes."""
    names = [service["container_name"] for service in content()["services"].values()]
    for name in reversed(names):
        engine("rm", "--force", "--time=10", name, check=False, timeout=60)
    if data:
        for volume in content()["volumes"].values():
            engine("volume", "rm", "--force", volume["name"], check=False)
    engine("network", "rm", f"{NAME}_default", check=False)


def sbom(directory: pathlib.Path) -> None:
    """Write the SBOM of each image beside its archive."""
    program = pathlib.Path(sys.executable).with_name("debsbom")
    for service, name in images().items():
        if service == "network":
            continue
        image = content()["services"][service]["image"]
        target = directory / f"{name}.cdx.json"
        made = engine("create", image, "true", image=image).stdout.strip().splitlines()[-1]
        try:
            with subprocess.Popen([engines.ENGINE, "export", made], stdout=subprocess.PIPE) as exported:
                done = run(
                    [program, "generate", "-t", "cdx", "-r", "-", "-o", directory / name],
                    stdin=exported.stdout,
                    timeout=300,
                )
        finally:
            engine("rm", "--force", made, check=False)
        if not target.exists():
            raise LabError(f"debsbom wrote no {target}: {done.stderr}")
