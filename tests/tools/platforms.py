#!/usr/bin/env python3
"""Sets up an exchange on each supported platform and tests it: `make platforms`.

A platform is DISTRIBUTION:RELEASE or DISTRIBUTION:RELEASE:MIRROR, such as trixie:22 or bullseye:18.2.0:/srv/sources; a
release without dots is the newest one of that number which role asterisk_package knows. Without platforms each
distribution runs with 22, or with each of --releases, such as 22 18.2.0:/srv/sources.

Each platform gets a lab host of its own: site.yml, which builds the package unless it is kept, site.yml again, which
has to change nothing, then tests of tests/site. While one is tested, the next is set up. The first platform of a
distribution also runs the tests of what depends on that.

Prints a Markdown table with a row for each platform; exits with code 1 if one failed. Environment: see lab/lab.py.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "tests/site")]

import image  # noqa: E402
import playbook  # noqa: E402

RELEASES = ROOT / "roles/asterisk_package/vars/main/pinned_sources.yml"
# Of each platform: services, calls, changes. Of each distribution: Python's libraries, nftables, fail2ban.
TESTS = ["test_host.py", "test_calls.py", "test_changes.py"]
TESTS_OF_DISTRIBUTION = ["test_events.py", "test_firewall.py"]
HEAD = "| Platform | Asterisk | site.yml | second run | tests |\n|---|---|---|---|---|"


def newest(release: str, known: list[str]) -> str:
    """The newest known release of a number without dots; any other is itself."""
    numbered = [one for one in known if one.split(".")[0] == release]
    return max(numbered, key=lambda one: [int(part) for part in one.split(".")], default=release)


@dataclass
class Platform:
    """One of the platforms, and what came of it."""

    distribution: str
    release: str
    mirror: str = ""
    asterisk: str = ""
    seconds: int | None = None
    changed: str = ""
    tests: str = ""
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, word: str) -> Platform:
        """The platform of a word of the command line."""
        distribution, _, rest = word.partition(":")
        release, _, mirror = rest.partition(":")
        if distribution not in image.RELEASES or not release:
            names = " or ".join(image.RELEASES)
            raise SystemExit(
                f"platforms: {word} is no platform; write {names}, a colon and a release, as in trixie:22."
            )
        known = yaml.safe_load(RELEASES.read_text())["__asterisk_package_releases"]
        return cls(distribution, newest(release, list(known)), mirror)

    @property
    def directory(self) -> Path:
        """Directory of the lab host, with the output of its runs."""
        return ROOT / ".lab/platforms" / f"{self.distribution}-{self.release}"

    @property
    def name(self) -> str:
        """Name of the lab host; of each checkout another one."""
        checkout = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
        return f"pbx-{self.distribution}-{self.release.replace('.', '-')}-{checkout}"

    def row(self) -> str:
        """The row of the table."""
        first = "" if self.seconds is None else f"{self.seconds} s"
        cells = [image.RELEASES[self.distribution], self.asterisk or self.release, first, self.changed]
        return f"| {' | '.join([*cells, '; '.join([*filter(None, [self.tests]), *self.faults])])} |"

    def lab(self, action: str) -> None:
        """Create or remove the lab host."""
        command = [sys.executable, ROOT / "lab/lab.py", action, "--dir", self.directory, "--name", self.name]
        command += ["--distribution", self.distribution] if action == "create" else []
        environment = {**os.environ, "RELEASE": self.release, "MIRROR": self.mirror}
        if subprocess.run(command, env=environment, check=False).returncode:
            raise Fault(f"the lab host could not be {'created' if action == 'create' else 'removed'}")

    def site(self, log: str, seconds: float) -> str:
        """Run site.yml; the number of changes."""
        done = playbook.play(self.directory, seconds=seconds)
        (self.directory / log).write_text(done.stdout + done.stderr)
        if done.returncode:
            refused = re.findall(r'"msg": "(.*?[^\\])"', done.stdout)
            raise Fault(f"site.yml failed, see {self.directory / log}: {refused[-1][:300] if refused else ''}")
        return max(re.findall(r"changed=(\d+)", done.stdout), key=int)

    def run(self, tests: list[str]) -> None:
        """All of it, up to the first fault."""
        self.set_up()
        self.test(tests)

    def set_up(self) -> None:
        """A host and its two runs of site.yml."""
        try:
            self.lab("down")  # the host of an earlier run
            self.lab("create")
            begun = time.monotonic()
            self.site("first.log", 3600)
            self.seconds = round(time.monotonic() - begun)
            self.changed = f"changed={self.site('second.log', 600)}"
            if self.changed != "changed=0":
                self.faults.append("the second run changed the host")
        except Fault as fault:
            self.faults.append(str(fault))

    def test(self, tests: list[str]) -> None:
        """Run tests on the host if it is set up."""
        if not self.changed:
            return
        shown = subprocess.run(
            [sys.executable, ROOT / "lab/lab.py", "ssh", "--dir", self.directory, "--cmd", "asterisk -V"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        self.asterisk = shown.stdout.strip().removeprefix("Asterisk ")
        paths = [ROOT / "tests/site" / name for name in tests]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", *paths],
            cwd=ROOT,
            env={**os.environ, "LAB_DIR": str(self.directory)},
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )
        (self.directory / "tests.log").write_text(done.stdout + done.stderr)
        counted = re.findall(r"^=* ?((?:\d+ \w+(?:, )?)+ in \d+)", done.stdout, re.MULTILINE)
        self.tests = f"{counted[-1]} s" if counted else "no test ran"
        self.faults += re.findall(r"^(?:FAILED|ERROR) \S*?::(\S+)", done.stdout, re.MULTILINE)
        if done.returncode and not self.faults:
            self.faults.append(f"exit code {done.returncode}, see {self.directory / 'tests.log'}")


class Fault(Exception):
    """Why a platform has failed."""


def main() -> int:
    """Run the platforms of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help="default: all distributions")
    parser.add_argument("--releases", nargs="+", default=["22"], metavar="RELEASE", help="of all distributions")
    parser.add_argument("--keep", action="store_true", help="leave the lab hosts in place")
    options = parser.parse_args()
    everything = [f"{suite}:{release}" for suite in image.RELEASES for release in options.releases]
    platforms = [Platform.of(word) for word in options.platforms or everything]
    seen: set[str] = set()
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(platforms[0].set_up)
        for platform, following in itertools.zip_longest(platforms, platforms[1:]):
            coming.result()
            if following:
                coming = ahead.submit(following.set_up)
            platform.test(TESTS + ([] if platform.distribution in seen else TESTS_OF_DISTRIBUTION))
            seen.add(platform.distribution)
            print(platform.row(), file=sys.stderr, flush=True)
            if not options.keep:
                platform.lab("down")
    print("\n".join([HEAD, *(platform.row() for platform in platforms)]))
    return int(any(platform.faults for platform in platforms))


if __name__ == "__main__":
    sys.exit(main())
