"""The Debian mirror, DEBIAN_MIRROR or that of this machine's apt, and packages fetched without touching /etc/apt."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence

from shell import CACHE, LabError, log, run

# A Debian mirror for lab hosts, with its security suite beside it (URL and URL-security); else this machine's own.
MIRROR = os.environ.get("DEBIAN_MIRROR", "").rstrip("/")
KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
HELPER = "/usr/lib/apt/apt-helper"
# Apt settings of this machine that its lab hosts need to use the same mirror.
INHERITED = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date")


def mirrors() -> dict[str, str]:
    """The mirrors by label, for example {'Debian': URI, 'Debian-Security': URI}."""
    if MIRROR:
        return {"Debian": MIRROR}
    for attempt in range(2):
        if attempt:
            run(["apt-get", "update", "-qq"], timeout=300)
        listed = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages"])
        rows = (line.split("|") for line in listed.stdout.splitlines())
        found = {row[1]: row[2].rstrip("/") for row in rows if len(row) == 3 and row[0] == "Debian"}
        if "Debian" in found:
            return found
    raise LabError("apt on this machine has no Debian mirror; add one to its sources or set DEBIAN_MIRROR")


def settings() -> list[str]:
    """The apt settings of this machine that its lab hosts need too, as lines of apt.conf."""
    dump = run(["apt-config", "dump"]).stdout.splitlines()
    return [line for line in dump if line.split(" ", 1)[0] in INHERITED]


def answers(uri: str) -> bool:
    """Whether the file at a URI can be downloaded."""
    scratch = CACHE / "apt" / "answer"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    options = ["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=15"]
    try:
        return run([HELPER, *options, "download-file", uri, scratch], timeout=60, check=False).returncode == 0
    finally:
        scratch.unlink(missing_ok=True)


def sources(suite: str) -> list[str]:
    """The lines of sources.list for a suite, and for its updates and its security suite where the mirror has them."""
    known = mirrors()
    main = known["Debian"]
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    lines = [f"deb {signed}{main} {suite} main"]
    for uri, name in (
        (main, f"{suite}-updates"),
        (known.get("Debian-Security", f"{main}-security"), f"{suite}-security"),
    ):
        if answers(f"{uri}/dists/{name}/InRelease"):
            lines.append(f"deb {signed}{uri} {name} main")
        else:
            log(f"the mirror has no {name}; continuing without it")
    return lines


class Suite:
    """Another suite of the mirror, in a separate apt configuration.

    Apt verifies what it fetches: the archive's key signs the index, which has the sha256 of each file.
    """

    def __init__(self, suite: str) -> None:
        self.directory = CACHE / "apt" / suite
        for name in ("lists/partial", "cache/archives/partial", "download"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        line = f"{signed}{mirrors()['Debian']} {suite} main\n"
        (self.directory / "sources.list").write_text(f"deb {line}deb-src {line}")
        self.options = [
            word
            for setting in (
                f"Dir::Etc::sourcelist={self.directory}/sources.list",
                "Dir::Etc::sourceparts=/dev/null",
                "Dir::Etc::preferencesparts=/dev/null",
                f"Dir::State::lists={self.directory}/lists",
                f"Dir::Cache={self.directory}/cache",
                "Acquire::Retries=3",
                "Acquire::Languages=none",
                "APT::Sandbox::User=root",
                "APT::Update::Post-Invoke=",
                "APT::Update::Post-Invoke-Success=",
            )
            for word in ("-o", setting)
        ]

    def update(self) -> None:
        """Fetch the suite's indexes."""
        run(["apt-get", *self.options, "update", "-qq", "--error-on=any"], timeout=300)

    def source_version(self, source: str) -> str:
        """The newest version of a source package, as Debian writes it."""
        shown = run(["apt-cache", *self.options, "showsrc", "--only-source", source]).stdout
        versions = re.findall(r"^Version: (.+)$", shown, re.MULTILINE)
        if not versions:
            raise LabError(f"the mirror has no source package {source}")
        newest = versions[0]
        for version in versions[1:]:
            if run(["dpkg", "--compare-versions", version, "gt", newest], check=False).returncode == 0:
                newest = version
        return newest

    def source(self, source: str, version: str) -> pathlib.Path:
        """Download a source package; returns the path of its .dsc."""
        target = self.directory / "download"
        run(
            ["apt-get", *self.options, "source", "-qq", "--download-only", f"{source}={version}"],
            timeout=900,
            cwd=target,
        )
        return target / f"{source}_{version.split(':', 1)[-1]}.dsc"

    def binaries(self, packages: Sequence[str]) -> list[pathlib.Path]:
        """Download binary packages; returns the paths of their .debs in the same order."""
        target = self.directory / "download"
        for old in target.glob("*.deb"):
            old.unlink()
        run(["apt-get", *self.options, "download", "-qq", *packages], timeout=900, cwd=target)
        return [next(target.glob(f"{package}_*.deb")) for package in packages]
