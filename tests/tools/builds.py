"""Other builds of a package of Asterisk, which differ from it in one thing; nothing is compiled for them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

MODULES = "usr/lib/asterisk/modules"
# What is different: an option, a program that ends, the modules that connect two channels.
CHANGES = {
    "second": f"rm {MODULES}/chan_ooh323.so; echo second > usr/share/doc/labredes-asterisk/build",
    "ending": "printf '#!/bin/sh\\necho it ends >&2\\nexit 1\\n' > usr/sbin/asterisk",
    "silent": f"rm {MODULES}/bridge_simple.so {MODULES}/bridge_native_rtp.so {MODULES}/bridge_softmix.so",
}


def rebuilt(original: Path, target: Path, version: str, change: str, **fields: str) -> None:
    """Make another build of a package: a shell line changes its files."""
    tree = target.with_suffix(".tree")
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-R", original, tree], check=True)
    subprocess.run(["sh", "-ec", change], cwd=tree, check=True)
    control = (tree / "DEBIAN/control").read_text()
    for name, value in {"Version": version, **fields}.items():
        control = re.sub(rf"(?m)^{name}: .*$", f"{name}: {value}", control)
    (tree / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, target], check=True)
    shutil.rmtree(tree)


def kept(version: str) -> Path:
    """The package of a version on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "labredes.pbx/packages"
    (package,) = cache.glob(f"*_{version.rpartition('.')[2]}.deb")
    return package


def other(name: str, version: str, place: Path) -> tuple[Path, str]:
    """The package of CHANGES of this name, made once in a directory, and its version."""
    key = str(list(CHANGES).index(name) + 1) * 12
    package, changed = place / f"labredes-asterisk_{name}_{key}.deb", re.sub(r"[0-9a-f]+$", key, version)
    if not package.exists():
        rebuilt(kept(version), package, changed, CHANGES[name])
    return package, changed
