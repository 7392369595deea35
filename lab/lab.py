#!/usr/bin/env python3
"""A throwaway host on this machine, and site.yml run on it.

Environment: RELEASE (of Asterisk), MIRROR (a directory or URL with its sources), GIT (a git with its tags).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

import host
import image
import upstream
from shell import LabError, alone, run, say

import inventory

ROOT = pathlib.Path(__file__).resolve().parent.parent


def ansible(room: pathlib.Path, *arguments: str | pathlib.Path, quiet: bool = False) -> None:
    """Run playbooks on the lab's inventory in one go, live unless `quiet`."""
    program = pathlib.Path(sys.executable).parent / "ansible-playbook"
    command = [program if program.exists() else "ansible-playbook", "-i", room / "inventory", *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    if quiet:
        run(command, timeout=300, cwd=ROOT, env=environment)
    elif code := subprocess.run(command, cwd=ROOT, env=environment).returncode:
        raise LabError(f"ansible-playbook ended with exit code {code}; its last task says why")


def create(options: argparse.Namespace) -> None:
    """Make the host, unless it is there, and write its inventory."""
    room = options.dir
    if os.geteuid():
        raise LabError("the lab makes its hosts with addresses of their own: run it as root")
    owner = host.owner(options.name)
    if owner and owner != str(room):
        raise LabError(f"a host named {options.name} belongs to {owner}; give another --name or remove that one first")
    # Sources come first: they are what can fail before anything is changed.
    with concurrent.futures.ThreadPoolExecutor() as side_by_side:
        made = side_by_side.submit(image.image, options.distribution)
        chosen = {} if options.bare else upstream.choose(*(os.environ.get(n, "") for n in ("RELEASE", "MIRROR", "GIT")))
    if owner and host.running(options.name) and inventory.path(room).exists():
        where = host.address(options.name)
    else:
        forget(options)
        (room / "secrets").mkdir(parents=True, mode=0o700)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "labredes.pbx lab", "-f", room / "key"])
        where = host.start(options.name, made.result(), room)
    inventory.write(room, options.name, where, host.gateway(options.name), chosen)


def up(options: argparse.Namespace) -> None:
    """Make the host, run site.yml on it, say what to dial."""
    create(options)
    told = describe(options.dir, ROOT / "site.yml")
    sip = told["info"]["sip"]
    print(f"\nRegister a softphone at {told['info']['host']} (UDP port {sip['udp']} or TCP port {sip['tcp']}):")
    for number, phone in told["info"]["phones"].items():
        print(f"  user {number}   password {phone['password']}")
    print("Then dial:")
    for line in told["dial"]:
        print(f"  {line['numbers']}   {line['what']}")


def describe(room: pathlib.Path, *first: pathlib.Path) -> dict[str, object]:
    """What lab/info.yml tells, after other playbooks if there are any: {'info': …, 'dial': …}."""
    with tempfile.TemporaryDirectory(prefix="labredes-info-") as place:
        answer = pathlib.Path(place) / "info.json"
        ansible(room, *first, ROOT / "lab/info.yml", "-e", f"lab_info_file={answer}", quiet=not first)
        told = json.loads(answer.read_text())
    _, address, _ = inventory.read(room)
    ssh = {"port": host.port(address, room), "user": host.ADMIN, "key_file": f"{room}/key"}
    sip = {"udp": None, "tcp": None, **told["info"].pop("sip")}
    told["info"] = {"host": address, "ssh": ssh, "sip": sip, **told["info"]}
    return told


def info(options: argparse.Namespace) -> None:
    """Print one JSON object: where everything is, with its passwords."""
    print(json.dumps(describe(options.dir)["info"], indent=2))


def ssh(options: argparse.Namespace) -> None:
    """Run a command as root on the host, over SSH; a shell when there is none."""
    _, address, _ = inventory.read(options.dir)
    login = host.ssh(address, host.port(address, options.dir), options.dir)
    command = ["-t", "sudo -n -i"] if not options.cmd else [f"sudo -n -- bash -c {shlex.quote(options.cmd)}"]
    raise SystemExit(subprocess.run([*login, *command]).returncode)


def forget(options: argparse.Namespace) -> None:
    """Remove the host, and what was only true of it."""
    host.remove(options.name)
    for name in ("key", "key.pub", "known_hosts", "inventory", "secrets"):
        path = options.dir / name
        if path.exists():
            run(["rm", "-rf", path])


def down(options: argparse.Namespace) -> None:
    """Remove the host; the image and every cache stay."""
    if inventory.path(options.dir).exists():
        options.name = inventory.read(options.dir)[0]
    owner = host.owner(options.name)
    if owner and owner != str(options.dir):
        raise LabError(f"{options.name} belongs to {owner}; remove it with --dir {owner}")
    forget(options)
    say(f"{options.name} is gone")


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for action in (create, up, info, ssh, down):
        command = commands.add_parser(action.__name__, help=action.__doc__, description=action.__doc__)
        command.set_defaults(action=action)
        command.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(".lab"), help="the lab's directory")
        if action in (create, up, down):
            command.add_argument("--name", default="pbx-lab", help="the host's name")
        if action in (create, up):
            command.add_argument("--distribution", choices=image.RELEASES, default="bullseye")
            command.add_argument("--bare", action="store_true", help="choose no Asterisk release")
        if action is ssh:
            command.add_argument("--cmd", default="", help="the command, for bash; none for a shell")
    return parser.parse_args(words)


def main() -> None:
    """Do what the command line says; an error is one sentence and exit code 1."""
    options = parse()
    options.dir = options.dir.resolve()
    try:
        if options.action in (create, up, down):
            with alone(options.dir / "lock", "at work in this lab", wait=False):
                options.action(options)
        else:
            options.action(options)
    except LabError as error:
        say(str(error))
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
