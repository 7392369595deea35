#!/usr/bin/env python3
"""Create throwaway hosts on this machine and run site.yml on them.

Environment: RELEASE (of Asterisk), MIRROR (directory or URL of its sources), GIT (a Git repository with its tags),
LAB_MEMORY (memory limit of the host), DEBIAN_MIRROR (URL). See lab/README.md.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
from typing import Any

import host
import image
import upstream
from shell import LabError, log, perform, run

import inventory

ROOT = pathlib.Path(__file__).resolve().parent.parent


def ansible(directory: pathlib.Path, *arguments: str | pathlib.Path, quiet: bool = False) -> str:
    """Run playbooks on the lab's inventory in one run; shows their output, or returns it if `quiet`."""
    program = pathlib.Path(sys.executable).parent / "ansible-playbook"
    command = [program if program.exists() else "ansible-playbook", "-i", directory / "inventory", *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    if quiet:
        done = run(command, timeout=300, cwd=ROOT, env=environment)
        return done.stderr + done.stdout
    if code := subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise LabError(f"ansible-playbook ended with exit code {code}; its last task says why")
    return ""


def create(options: argparse.Namespace) -> None:
    """Create each host unless it exists, and write their inventory."""
    if os.geteuid():
        raise LabError("the lab gives each host its own network address: run it as root")
    kinds = dict(zip(host_names(options), itertools.cycle(options.distribution)))
    for name in kinds:
        refuse_another(name, options.dir)
    # Choose the sources first: if that fails, nothing has changed yet.
    with concurrent.futures.ThreadPoolExecutor() as executor:
        built = {kind: executor.submit(image.image, kind) for kind in options.distribution}
        chosen = {} if options.bare else upstream.choose(*(os.environ.get(n, "") for n in ("RELEASE", "MIRROR", "GIT")))
    images = {kind: found.result() for kind, found in built.items()}
    known = inventory.names(options.dir) if inventory.path(options.dir).exists() else []
    if known != list(kinds) or not all(map(host.running, known)):
        remove(options)
        (options.dir / "secrets").mkdir(parents=True, mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "labredes.pbx lab", "-f", options.dir / "key"])
        for name, kind in kinds.items():
            host.start(name, images[kind], options.dir)
    addresses = {name: host.address(name) for name in kinds}
    inventory.write(options.dir, addresses, host.gateway(options.name), chosen)


def host_names(options: argparse.Namespace) -> list[str]:
    """The names of the hosts: NAME, NAME-2, NAME-3 …"""
    return [options.name, *(f"{options.name}-{number}" for number in range(2, options.hosts + 1))]


def refuse_another(name: str, directory: pathlib.Path) -> None:
    """Refuse a host that is not of this lab, with LabError."""
    owner = host.owner(name)
    if owner and owner != str(directory):
        raise LabError(f"a host named {name} belongs to {owner}; give another --name or remove that one first")


def up(options: argparse.Namespace) -> None:
    """Create the hosts, run site.yml on them, and print what to dial on the first."""
    create(options)
    described = describe(options.dir, ROOT / "site.yml")
    sip = described["info"]["sip"]
    print(f"\nRegister a softphone at {described['info']['host']} (UDP port {sip['udp']} or TCP port {sip['tcp']}):")
    for number, phone in described["info"]["phones"].items():
        print(f"  user {number}   password {phone['password']}")
    print("Then dial:")
    for line in described["dial"]:
        print(f"  {line['numbers']}   {line['what']}")


def describe(directory: pathlib.Path, *first: pathlib.Path) -> dict[str, Any]:
    """The output of lab/connection_details.yml, run after other playbooks if any: {'info': …, 'dial': …}."""
    with tempfile.TemporaryDirectory(prefix="labredes-info-") as temporary:
        answer = pathlib.Path(temporary) / "info.json"
        output = ansible(
            directory, *first, ROOT / "lab/connection_details.yml", "-e", f"lab_info_file={answer}", quiet=not first
        )
        if not answer.exists():
            raise LabError(
                f"lab/connection_details.yml has nothing to say of the hosts in {directory}/inventory:\n{output}"
            )
        described = json.loads(answer.read_text())
    _, address, _ = inventory.read(directory)
    ssh = {"port": host.port(address, directory), "user": host.ADMIN, "key_file": f"{directory}/key"}
    sip = {"udp": None, "tcp": None, **described["info"].pop("sip")}
    described["info"] = {"host": address, "ssh": ssh, "sip": sip, **described["info"]}
    return described


def info(options: argparse.Namespace) -> None:
    """Print addresses, ports, users and passwords as one JSON object."""
    print(json.dumps(describe(options.dir)["info"], indent=2))


def ssh(options: argparse.Namespace) -> None:
    """Run a command as root on the host over SSH, or open a shell."""
    _, address, _ = inventory.read(options.dir)
    login = host.ssh(address, host.port(address, options.dir), options.dir)
    command = ["-t", "sudo -n -i"] if not options.cmd else [f"sudo -n -- bash -c {shlex.quote(options.cmd)}"]
    raise SystemExit(subprocess.run([*login, *command]).returncode)


def remove(options: argparse.Namespace) -> None:
    """Remove the hosts with their key, inventory and secrets."""
    for name in host.owned(options.dir):
        host.remove(name)
    for name in ("key", "key.pub", "known_hosts", "inventory", "secrets"):
        path = options.dir / name
        if path.exists():
            run(["rm", "-rf", path])


def down(options: argparse.Namespace) -> None:
    """Remove the hosts; images and caches stay."""
    if inventory.path(options.dir).exists():
        options.name = inventory.read(options.dir)[0]
    refuse_another(options.name, options.dir)
    remove(options)
    log(f"{options.name} is removed")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for action in (create, up, info, ssh, down):
        command = commands.add_parser(action.__name__, help=action.__doc__, description=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(".lab"), help="the lab's directory")
        if action in (create, up, down):
            command.add_argument("--name", default="pbx-lab", help="the host's name")
        if action in (create, up):
            command.add_argument("--distribution", choices=image.RELEASES, nargs="+", default=["bullseye"])
            command.add_argument("--hosts", type=int, default=1, help="how many; they take the distributions in turn")
            command.add_argument("--bare", action="store_true", help="do not choose an Asterisk release")
        if action is ssh:
            command.add_argument("--cmd", default="", help="a bash command; without it, a shell")
    return parser.parse_args(words)


def main() -> None:
    """Run the command of the command line."""
    options = parse()
    perform(options, "using this lab", alone=options.action in (create, up, down))


if __name__ == "__main__":
    main()
