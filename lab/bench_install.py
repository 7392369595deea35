"""Measure: `make lab` with empty caches, against a plain shell script.

The plain script does on an equal host what one would type: install the same prerequisites, configure,
compile on all cores, install the same release with the same options. Its host and sources are prepared
beforehand; `make lab`, with empty caches, has to create and fetch them. The speed of a machine varies within
minutes, so the plain script runs before and after, and the mean is compared. Environment: see lab.py.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import host
import image
import upstream
import yaml
from bench_clock import timed
from shell import LabError, run

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROLE = ROOT / "roles/asterisk_package"
RATIO = 1.25
PLAIN = """
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
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
    return PLAIN.format(
        packages=" ".join(variables["__asterisk_package_build_dependencies"]),
        tree=tree,
        pjproject=f"pjproject-{entry['pjproject']['version']}.tar.bz2",
        bootstrap="./bootstrap.sh > /dev/null" if entry.get("bootstrap") else "",
        options=" ".join(f"--enable {option}" for option in options if option == option.lower()),
        sounds="\n".join(sounds),
    )


def plain(script: str, sources: pathlib.Path, directory: pathlib.Path, suite: str) -> float:
    """Seconds that the plain script takes on a new host, with its sources at hand; `directory` is created."""
    directory.mkdir()
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / "key"])
    name = "pbx-bench-plain"
    host.remove(name)
    host.start(name, image.image(suite), directory)
    try:
        run(["podman", "cp", sources, f"{name}:/usr/src/bench"])
        return timed("the plain script", ["podman", "exec", name, "bash", "-c", script])
    finally:
        host.remove(name)


@contextlib.contextmanager
def measured() -> Iterator[tuple[pathlib.Path, dict[str, str], dict[str, Any]]]:
    """Measure both; yields the new lab, the environment it was made in, and the figures. Removes the lab at the end."""
    suite = os.environ.get("DISTRIBUTION", "bullseye")
    chosen = upstream.choose(*(os.environ.get(name, "") for name in ("RELEASE", "MIRROR", "GIT")))
    with tempfile.TemporaryDirectory(prefix="labredes-bench-") as temporary:
        directory = pathlib.Path(temporary)
        sources = directory / "sources"
        script = plain_script(chosen, sources)
        before = plain(script, sources, directory / "before", suite)
        environment = {**os.environ, "XDG_CACHE_HOME": str(directory / "cache")}
        lab = [sys.executable, str(ROOT / "lab/lab.py")]
        selected = ["--dir", str(directory / "lab"), "--name", "pbx-bench"]
        # Only the tag is removed, since other hosts may use the image: the lab has to build it again.
        run(["podman", "untag", image.image(suite)])
        try:
            lab_seconds = timed(
                "make lab, with empty caches", [*lab, "up", *selected, "--distribution", suite], env=environment
            )
            after = plain(script, sources, directory / "after", suite)
            plain_seconds = (before + after) / 2
            yield (
                directory / "lab",
                environment,
                {
                    "release": chosen.get("asterisk_package_release") or "18.2.0",
                    "plain_script_seconds": round(plain_seconds, 1),
                    "plain_script_before_and_after_seconds": [round(before, 1), round(after, 1)],
                    "make_lab_seconds": round(lab_seconds, 1),
                    "ratio": round(lab_seconds / plain_seconds, 3),
                    "ratio_at_most": RATIO,
                },
            )
        finally:
            subprocess.run([*lab, "down", *selected], check=False)
