#!/usr/bin/env python3
"""Loses an exchange and brings it back: `make drill`.

On a lab host of its own a caller leaves a message, the owner of the mailbox records a greeting and changes the PIN, and
a phone is forwarded, all by telephone. Then a backup is made; the host is destroyed, and the controller's secrets with
it. Another host takes its address, site.yml and restore.yml run, and everything has to be as it was, by telephone, too.
Prints a JSON object with the figures and their limits; exits with code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site"), str(ROOT / "collections")]

import conftest  # noqa: E402
import exchange_state  # noqa: E402
import host  # noqa: E402
import image  # noqa: E402
from lab_host import LabHost  # noqa: E402
from playbook import play  # noqa: E402
from prompts import Prompts  # noqa: E402
from sipp import within  # noqa: E402

import inventory  # noqa: E402
import lab as lab_command  # noqa: E402

PIN = "274913"
SECONDS = 120  # from a bare host to the exchange as it was


def run(directory: Path, *playbooks: str) -> str:
    """Run playbooks of the collection as an administrator does; the output, or the end of the drill."""
    names = " ".join(f"playbooks/{name}.yml" for name in playbooks)
    done = play(directory, "-e", f"backup_directory={directory}/backups", playbook=names, seconds=900)
    if done.returncode:
        raise SystemExit(done.stdout[-4000:] + done.stderr)
    return " ".join(done.stdout.split())


def known(directory: Path) -> dict:
    """What `make lab-info` prints."""
    return lab_command.describe(directory)["info"]


def telephones(stack: ExitStack, lab: dict) -> conftest.Telephones:
    """The telephones of the tests."""
    tar = [*conftest._ssh(lab), "tar -cz -C /var/lib/asterisk/sounds/es ."]
    sounds = subprocess.run(tar, capture_output=True, timeout=60, check=True)
    return conftest.Telephones(lab, Prompts.of(sounds.stdout), stack)


def need(condition: object, what: str, line: object = "") -> None:
    """End the drill where something is not as it should be."""
    if not condition:
        raise SystemExit(f"drill: {what}. {line!r}")


def open_mailbox(phones: conftest.Telephones, number: str, pin: str):
    """A line of a mailbox's owner, after the PIN."""
    owner = phones.dial(number, "6500", talking=False)
    need(owner.hears("vm-password"), "the mailbox does not answer", owner)
    owner.media.press(pin + "#")
    return owner


def use(lab: dict) -> dict[str, SimpleNamespace]:
    """What people do with their telephones before the host is lost; what they have said."""
    with ExitStack() as stack:
        phones = telephones(stack, lab)
        owner = open_mailbox(phones, "6002", lab["mailboxes"]["6002"])
        need(owner.hears("vm-youhaveno"), "the first PIN is refused", owner)
        time.sleep(1)
        owner.media.press("0")  # options of the mailbox
        time.sleep(1)
        owner.media.press("1")  # the greeting
        need(owner.hears("beep", 20), "no greeting can be recorded", owner)
        owner.media.talking = True
        time.sleep(3)
        owner.media.talking = False
        owner.media.press("#")
        time.sleep(2)
        owner.media.press("1")  # keep it
        time.sleep(3)
        owner.media.press("5")  # the PIN
        need(owner.hears("vm-newpassword", 20), "no PIN can be changed", owner)
        owner.media.press(PIN + "#")
        need(owner.hears("vm-reenterpassword", 20), "the PIN is not asked for again", owner)
        owner.media.press(PIN + "#")
        need(owner.hears("vm-passchanged", 20), "the PIN is not changed", owner)
        owner.hang_up()
        caller = phones.dial("6001", "6002", talking=False)
        need(caller.leaves_message(), "no message can be left", caller)
        line = phones.dial("6001", "*21", talking=False)
        need(line.hears("vm-enter-num-to-call"), "no forward can be set", line)
        line.media.press("6003#", wait=False)
        need(line.ended(20), "the forward is not set", line)
        said = {"greeting": owner.media.mark, "message": caller.media.mark}
    return {name: SimpleNamespace(mark=mark) for name, mark in said.items()}


def look(lab: dict, said: dict[str, SimpleNamespace]) -> list[str]:
    """What does not work by telephone after the restore."""
    wrong = []
    with ExitStack() as stack:
        phones = telephones(stack, lab)
        caller = phones.dial("6001", "6002", talking=False)
        if not within(8, lambda: caller.media.frames_of(said["greeting"]) > 50):
            wrong.append("greeting")
        caller.hang_up()
        owner = open_mailbox(phones, "6002", PIN)
        if not owner.hears("vm-youhave"):
            wrong.append("PIN")
        owner.hears("vm-INBOX", whole=False)
        owner.media.press("1")
        if not within(20, lambda: owner.media.frames_of(said["message"]) > 50):
            wrong.append("message")
        owner.hang_up()
        target = phones.answering("6003")
        phones.dial("6002", "6001", talking=False)
        if not within(8, lambda: target.invited == 1):
            wrong.append("forward")
    return wrong


def replaced(directory: Path) -> None:
    """Destroy the host and the controller's secrets of it; a bare host takes its name and its address."""
    name, address, release = inventory.read(directory)
    host.remove(name)
    shutil.rmtree(directory / "secrets")
    # The new host has new keys until the restore.
    (directory / "known_hosts").unlink(missing_ok=True)
    (directory / "secrets").mkdir(mode=0o700)
    host.start(name, image.image("bullseye"), directory, at=address)
    inventory.write(directory, {name: address}, host.gateway(name), release)


def main() -> int:
    """Use, back up, lose, restore, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, default=ROOT / ".lab/drill", help="directory of the lab host")
    parser.add_argument("--name", default="pbx-drill")
    parser.add_argument("--keep", action="store_true", help="leave the host in place")
    options = parser.parse_args()
    directory = options.dir.resolve()
    words = ["--dir", str(directory), "--name", options.name]
    create = lab_command.parse(["create", *words])
    create.dir = directory
    try:
        lab_command.create(create)
        run(directory, "site")
        lab = known(directory)
        said = use(lab)
        before, passwords = exchange_state.of(LabHost(directory).run), lab["phones"]
        begun = time.monotonic()
        run(directory, "backup")
        seconds = {"backup_seconds": round(time.monotonic() - begun)}
        replaced(directory)
        begun = time.monotonic()
        run(directory, "restore_secrets")
        run(directory, "site")
        seconds["site_seconds"] = round(time.monotonic() - begun)
        again = time.monotonic()
        run(directory, "restore")
        seconds["restore_seconds"] = round(time.monotonic() - again)
        seconds["recovery_seconds"] = round(time.monotonic() - begun)
        (directory / "known_hosts").unlink()
        after, lab = exchange_state.of(LabHost(directory).run), known(directory)
        figures = {
            **seconds,
            "recovery_seconds_at_most": SECONDS,
            **{part: len(before[part]) for part in exchange_state.PARTS},
            "records": int(before["records"][0].split("|")[0]),
            "different": [part for part in exchange_state.PARTS if before[part] != after[part]],
            "other_passwords": [number for number in passwords if passwords[number] != lab["phones"].get(number)],
            "wrong_by_telephone": look(lab, said),
        }
        if figures["different"]:
            print(json.dumps({"before": before, "after": after}, indent=2), file=sys.stderr)
        print(json.dumps(figures, indent=2))
    finally:
        if not options.keep:
            remove = lab_command.parse(["down", *words])
            remove.dir = directory
            lab_command.remove(remove)
            shutil.rmtree(directory / "backups", ignore_errors=True)
    faults = figures["different"] + figures["other_passwords"] + figures["wrong_by_telephone"]
    return int(bool(faults) or figures["recovery_seconds"] > SECONDS)


if __name__ == "__main__":
    sys.exit(main())
