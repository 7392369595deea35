#!/usr/bin/env python3
"""Install Asterisk on a new lab host as an administrator does without a playbook: `make install`, files by hand.

The host is one of `lab.py create`. Its programs come from a package that the lab has built already, without a record in
dpkg's database. See lab/README.md.
"""

from __future__ import annotations

import argparse
import pathlib

import host
import upstream
from shell import CACHE, LabError, log, perform, run

import inventory

HERE = pathlib.Path(__file__).resolve().parent / "manual_installation"
TARGET = "/usr/src/manual-installation"


def package(version: str, distribution: str) -> pathlib.Path:
    """The newest package of a release that the lab has built for a distribution, such as debian11."""
    found = (CACHE / "packages").glob(f"labredes-asterisk_{version}_{distribution}_*.deb")
    try:
        return max(found, key=lambda path: path.stat().st_mtime)
    except ValueError:
        raise LabError(
            f"{CACHE}/packages has no package of Asterisk {version} for {distribution}; build it with `make lab`"
        ) from None


def install(options: argparse.Namespace) -> None:
    """Put the sources, the package and the script on the host and run the script."""
    name, _, known = inventory.read(options.dir)
    release, mirror = (known.get(f"asterisk_package_{word}") for word in ("release", "mirror"))
    if not (mirror and pathlib.Path(mirror).is_dir()):
        raise LabError("the sources are taken from the inventory's asterisk_package_mirror, which is no directory here")
    log(f"installing Asterisk by hand on {name}")
    run(["podman", "cp", HERE, f"{name}:{TARGET}"])
    for path in (*pathlib.Path(mirror).glob("*.tar.gz"), package(str(release or upstream.DEFAULT), distribution(name))):
        target = "asterisk.deb" if path.suffix == ".deb" else path.name
        run(["podman", "cp", path, f"{name}:{TARGET}/{target}"])
    run(["podman", "exec", name, "sh", f"{TARGET}/install.sh"], timeout=600)
    log(f"{name} has its Asterisk, on SSH port {host.port(host.address(name), options.dir)}")


def distribution(name: str) -> str:
    """The distribution of a host as the names of packages have it."""
    command = '. /etc/os-release; echo "$ID${VERSION_ID%%.*}"'
    return run(["podman", "exec", name, "sh", "-c", command]).stdout.strip()


def main() -> None:
    """Run the command of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=pathlib.Path, default=pathlib.Path(".lab"), help="the lab's directory")
    options = parser.parse_args()
    options.action = install
    perform(options, "using this lab", alone=True)


if __name__ == "__main__":
    main()
