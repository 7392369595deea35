"""Measure site.yml on new hosts: with an empty cache, with the package kept, and on three at once.

Each is compared with what one would type. With an empty cache: a shell script that installs the same packages,
configures, compiles on all cores and installs the same release with the same options. With the package kept: the
distribution's own Asterisk and PostgreSQL, by one command of apt. Both have equal new hosts, and Asterisk's sources at
hand. The speed of a machine varies within minutes, so each round has both, in changing order, and the median of the
rounds' ratios is compared with the limit.
"""

from __future__ import annotations

import pathlib
import shutil
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import bench_host
import upstream
import yaml
from shell import LabError, run

import inventory

ROLE = bench_host.ROOT / "roles/asterisk_package"
# Installed besides what is compiled, as site.yml does.
PACKAGES = (
    "acl apt-listchanges debsums fail2ban libpam-pwquality logrotate lua5.2 nftables odbc-postgresql openssl "
    "postgresql python3-aiohttp python3-psycopg2 python3-systemd unattended-upgrades unixodbc"
)
PLAIN = """
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get upgrade -y -qq > /dev/null
apt-get install -y -qq --no-install-recommends {packages} > /dev/null
cd /usr/src/bench
mkdir tree && tar -xf {tree} -C tree --strip-components=1
cp -r mp3 tree/addons/mp3
sed -i 's/#include "asterisk.h"/#define ASTMM_LIBC ASTMM_REDIRECT\\n&/' tree/addons/mp3/interface.c
md5sum {pjproject} > tree/third-party/pjproject/{pjproject}.md5
cd tree
{bootstrap}
LUA_VERSIONS=5.2 ./configure --with-externals-cache=/usr/src/bench > /dev/null
make menuselect.makeopts > /dev/null
menuselect/menuselect --disable-category MENUSELECT_CORE_SOUNDS --disable-category MENUSELECT_MOH \\
  --disable-category MENUSELECT_TESTS --disable BUILD_NATIVE {options} menuselect.makeopts
make -j"$(nproc)" > /dev/null
make install > /dev/null
{sounds}
ldconfig
asterisk -V
"""


def plain_script(chosen: dict[str, Any], sources: pathlib.Path) -> str:
    """The plain shell script for the release that the lab builds; copies its sources into `sources`."""
    paths = [ROLE / "defaults/main.yml", *(ROLE / "vars/main").glob("*.yml")]
    variables = {name: value for path in paths for name, value in yaml.safe_load(path.read_text()).items()}
    table = {**variables["__asterisk_package_releases"], **chosen.get("asterisk_package_extra_releases", {})}
    name = chosen.get("asterisk_package_release") or "18.2.0"
    entry = table[name]
    options = [option for option in variables["asterisk_package_default_enable"] if option not in entry["lacks"]]
    if not pathlib.Path(chosen.get("asterisk_package_mirror", "")).is_dir():
        raise LabError("the plain script needs local sources: set MIRROR to a directory with them")
    mirror = pathlib.Path(chosen["asterisk_package_mirror"])
    shutil.copytree(mirror, sources, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.git"))
    tree = entry.get("archive", {}).get("name", f"asterisk-{name}.tar.gz")
    if "commit" in entry:
        git = chosen.get("asterisk_package_git_url", upstream.GIT)
        with tempfile.TemporaryDirectory() as clone:
            run(["git", "clone", "-q", "--bare", "--depth=1", "--branch", name, git, clone], timeout=600)
            run(["git", "-C", clone, "archive", f"--prefix=asterisk-{name}/", "-o", sources / tree, entry["commit"]])
    sounds = [
        f"mkdir -p /var/lib/asterisk/{target} && tar -xf ../{archive.name} -C /var/lib/asterisk/{target}"
        for prefix, target in (
            ("core-sounds-es-wav", "sounds/es"),
            ("core-sounds-en-gsm", "sounds/en"),
            ("moh-opsound-wav", "moh"),
        )
        for archive in sources.glob(f"asterisk-{prefix}-*.tar.gz")
    ]
    # The one whose name the role computes, that of ncurses, is what libedit-dev depends on.
    dependencies = [one for one in variables["__asterisk_package_build_dependencies"] if "{{" not in one]
    return PLAIN.format(
        packages=" ".join([PACKAGES, *dependencies]),
        tree=tree,
        pjproject=f"pjproject-{entry['pjproject']['version']}.tar.bz2",
        bootstrap="./bootstrap.sh > /dev/null" if entry.get("bootstrap") else "",
        options=" ".join(f"--enable {option}" for option in options if option == option.lower()),
        sounds="\n".join(sounds),
    )


# Where the mirror lacks a package of the newest version, that of the release itself, without security updates.
DISTRIBUTION = """
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
install="apt-get install -y -qq"
$install asterisk postgresql > /dev/null || {
  version=$(apt-cache madison asterisk | awk 'END { print $3 }')
  $install postgresql $(printf "asterisk%s=$version " '' -config -modules -voicemail) > /dev/null
}
asterisk -V
"""


def typed(what: str, script: str, directory: pathlib.Path) -> float:
    """Seconds that a script takes on the lab host of `directory`."""
    name = inventory.names(directory)[0]
    return round(bench_host.timed(what, ["podman", "exec", name, "bash", "-c", script]), 1)


def rounds_of(count: int, ours: Callable[[], dict[str, Any]], theirs: Callable[[], float]) -> dict[str, list[Any]]:
    """What both took in each round, and the ratios of their seconds."""
    found = bench_host.in_turns(count, ours, theirs)
    ratios = [round(our["seconds"] / their, 3) for our, their in zip(*found, strict=True)]
    return {"ours": found[0], "theirs": found[1], "ratios": ratios}


def figures_of(found: dict[str, list[Any]], name: str, other: str, limit: float) -> dict[str, Any]:
    """The figures of the rounds: NAME is ours, NAME_OTHER what it is compared with."""
    seconds = [one["seconds"] for one in found["ours"]]
    return {
        f"{name}_rounds": [seconds, found["theirs"]],
        f"{name}_seconds": statistics.median(seconds),
        f"{name}_{other}_seconds": statistics.median(found["theirs"]),
        f"{name}_ratio": statistics.median(found["ratios"]),
        f"{name}_ratio_at_most": limit,
        f"{name}_parts": found["ours"][-1]["parts"],
    }


def cold(count: int, suite: str, chosen: dict[str, Any]) -> dict[str, Any]:
    """With an empty cache, against the shell script."""
    with tempfile.TemporaryDirectory(prefix="labredes-bench-sources-") as temporary:
        sources = pathlib.Path(temporary) / "bench"
        script = plain_script(chosen, sources)

        def ours() -> dict[str, Any]:
            with bench_host.fresh(suite) as directory:
                return bench_host.site("site.yml with an empty cache", directory, cache=directory / "cache")

        def theirs() -> float:
            with bench_host.fresh(suite) as directory:
                run(["podman", "cp", sources, f"{inventory.names(directory)[0]}:/usr/src/bench"])
                return typed("the shell script", script, directory)

        return figures_of(rounds_of(count, ours, theirs), "cold", "script", 1.1)


def warm(count: int, suite: str) -> dict[str, Any]:
    """With the package kept, against the distribution's packages; then on three hosts at once."""

    def ours() -> dict[str, Any]:
        with bench_host.fresh(suite) as directory:
            return bench_host.site("site.yml with the package kept", directory)

    def theirs() -> float:
        with bench_host.fresh(suite) as directory:
            return typed("the distribution's packages", DISTRIBUTION, directory)

    ours()  # builds the package unless it is kept
    found = rounds_of(count, ours, theirs)
    fleet = []
    for one in found["ours"]:
        with bench_host.fresh(suite, hosts=3) as directory:
            three = bench_host.site("site.yml on three hosts", directory)["seconds"]
        fleet.append(round((three - one["seconds"]) / 2 / one["seconds"], 3))
    return {
        **figures_of(found, "warm", "distribution", 1.5),
        "further_host_ratio": statistics.median(fleet),
        "further_host_ratio_at_most": 0.25,
    }
