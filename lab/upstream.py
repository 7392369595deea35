"""The source of the lab's Asterisk: upstream if it is reachable, else Debian's source package.

Only the lab falls back to Debian. It fills a mirror directory with files under upstream's names and describes
them as a release of their own (`22.10.1-debian`), so that the role needs no special case.
"""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import debian_mirror
from shell import CACHE, LabError, lock, log, run

GIT = "https://github.com/asterisk/asterisk"
DEFAULT = "18.2.0"
MIRRORS = CACHE / "mirror"
SOUNDS = {
    "asterisk-core-sounds-en-gsm": ("usr/share/asterisk/sounds/en_US_f_Allison/", "1.6.1"),
    "asterisk-core-sounds-es-wav": ("usr/share/asterisk/sounds/es_MX_f_Allison/", "1.6.1"),
    "asterisk-moh-opsound-wav": ("usr/share/asterisk/moh/", "2.03"),
}
LACKS = ["app_macro", "app_mysql", "cdr_mysql", "chan_sip"]


def reachable(git: str = GIT, seconds: float = 10) -> bool:
    """Whether upstream's git answers within `seconds`."""
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return run(["git", "ls-remote", "--heads", git], timeout=seconds, check=False, env=quiet).returncode == 0


def choose(release: str, mirror: str, git: str) -> dict[str, Any]:
    """The role's variables for a release (empty: the role's default) from a mirror, a git or upstream."""
    if mirror and "://" not in mirror:
        if not pathlib.Path(mirror).is_dir():
            raise LabError(f"MIRROR={mirror} is not a directory; set it to a directory with the sources, or a URL")
        mirror = str(pathlib.Path(mirror).resolve())
    chosen: dict[str, Any] = {
        "asterisk_package_release": release,
        "asterisk_package_mirror": mirror,
        "asterisk_package_git_url": git,
    }
    if mirror or git or reachable():
        described = pathlib.Path(mirror or "/nonexistent") / "release.json"
        if described.is_file():
            # A mirror with other files than upstream's has their checksums in release.json, like the one below.
            chosen["asterisk_package_extra_releases"] = {release or DEFAULT: json.loads(described.read_text())}
        return {name: value for name, value in chosen.items() if value}
    version, entry, directory = from_debian()
    wanted = f"Asterisk {release}" if release else "Asterisk"
    log(
        f"upstream's sources of {wanted} are not reachable from here; this lab gets Debian's Asterisk {version} instead"
    )
    return {
        "asterisk_package_release": f"{version}-debian",
        "asterisk_package_mirror": str(directory),
        "asterisk_package_extra_releases": {f"{version}-debian": entry},
    }


def from_debian() -> tuple[str, dict[str, Any], pathlib.Path]:
    """Debian's Asterisk as (version, release entry, mirror directory); the directory is filled once."""
    with lock(CACHE / "mirror.lock", "fetching Debian's Asterisk"):
        # release.json is written last: a directory without it is incomplete, and one with other sounds is outdated.
        wanted = {f"{package}-{number}.tar.gz" for package, (_, number) in SOUNDS.items()}
        stamps = [
            stamp
            for stamp in sorted(MIRRORS.glob("debian-*/release.json"), key=lambda path: path.stat().st_mtime)
            if wanted <= set(json.loads(stamp.read_text())["checksums"])
        ]
        directory = stamps[-1].parent if stamps else fill()
    return directory.name.removeprefix("debian-"), json.loads((directory / "release.json").read_text()), directory


def fill() -> pathlib.Path:
    """Fetch and repack Debian's sources and sounds: 75 MB, about a minute."""
    log("fetching Debian's source package of Asterisk and its sounds (75 MB, about a minute, once)")
    suite = debian_mirror.Suite("sid")
    suite.update()
    full = suite.source_version("asterisk")
    version = re.sub(r"^(?:\d+:)?([0-9.]+).*", r"\1", full)
    directory = MIRRORS / f"debian-{version}"
    partial = MIRRORS / f"debian-{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
    (partial / "mp3").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="labredes-asterisk-", dir=MIRRORS) as unpacked:
        tree = pathlib.Path(unpacked) / f"asterisk-{version}"
        dsc = suite.source("asterisk", full)
        run(["dpkg-source", "--extract", dsc, tree], timeout=300)
        pjproject = pack_pjproject(tree, partial)
        unpack_flat(next(dsc.parent.glob(f"{dsc.stem.rsplit('-', 1)[0]}.orig-Xmp3.tar.*")), partial / "mp3")
        for component in [*tree.glob("X*"), tree / ".pc"]:
            if component.is_dir():
                shutil.rmtree(component)
        archive = partial / f"asterisk-{version}-debian.tar.gz"
        pack(archive, from_tree(tree, f"asterisk-{version}"))
    sounds = {}
    for deb, (package, (inside, number)) in zip(suite.binaries(list(SOUNDS)), SOUNDS.items(), strict=True):
        target = partial / f"{package}-{number}.tar.gz"
        pack(target, from_deb(deb, inside))
        sounds[target.name] = [digest(target)]
    entry = {
        "archive": {"name": archive.name, "checksums": [digest(archive)]},
        "pjproject": pjproject,
        "bootstrap": True,
        "lacks": LACKS,
        "sounds": {"core": SOUNDS["asterisk-core-sounds-es-wav"][1], "moh": SOUNDS["asterisk-moh-opsound-wav"][1]},
        "checksums": sounds,
        "verified_by": "the signature of Debian's archive",
    }
    (partial / "release.json").write_text(json.dumps(entry, indent=2) + "\n")
    partial.rename(directory)
    shutil.rmtree(suite.directory / "download")
    return directory


def pack_pjproject(tree: pathlib.Path, target: pathlib.Path) -> dict[str, Any]:
    """Pack Debian's pjproject as the tarball that Asterisk's build expects, and write its md5 into the tree."""
    expected = next((tree / "third-party/pjproject").glob("pjproject-*.tar.bz2.md5"))
    name = expected.name.removesuffix(".md5")
    number = name.removeprefix("pjproject-").removesuffix(".tar.bz2")
    pack(target / name, from_tree(tree / "Xpjproject", f"pjproject-{number}"))
    md5 = digest(target / name, "md5")
    expected.write_text(f"{md5.removeprefix('md5:')}  {name}\n")
    return {"version": number, "checksums": [digest(target / name), md5]}


def unpack_flat(archive: pathlib.Path, target: pathlib.Path) -> None:
    """Unpack the plain files of an archive's one directory."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                (target / pathlib.PurePath(member.name).name).write_bytes(content_of(tar, member))


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a file in an archive; empty for what is no file."""
    opened = tar.extractfile(member) if member.isfile() else None
    return opened.read() if opened else b""


Entry = tuple[tarfile.TarInfo, Callable[[], bytes]]


def entry_of(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    """A member without what depends on the date, the machine or the user."""
    plain = tarfile.TarInfo(name)
    plain.type, plain.linkname, plain.size = member.type, member.linkname, member.size
    plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return plain


def from_tree(tree: pathlib.Path, top: str) -> Iterable[Entry]:
    """The content of a directory under the name `top`."""
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as probe:
        for path in [tree, *tree.rglob("*")]:
            member = probe.gettarinfo(path)
            # Two links to one file are two files; there is no public way to say so.
            probe.inodes.clear()  # type: ignore[attr-defined]
            yield entry_of(member, str(pathlib.PurePath(top) / path.relative_to(tree))), path.read_bytes


def from_deb(deb: pathlib.Path, inside: str) -> Iterable[Entry]:
    """The content of one directory of a Debian package, and the package's copyright file."""
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as opened,
        tarfile.open(fileobj=opened.stdout, mode="r|") as tar,
    ):
        for member in tar:
            name = member.name.removeprefix("./")
            if name.startswith(inside) and len(name) > len(inside):
                name = name.removeprefix(inside)
            elif name.endswith("/copyright"):
                name = f"LICENSE-{deb.name.split('_')[0]}"
            else:
                continue
            yield entry_of(member, name), functools.partial(bytes, content_of(tar, member))
    if opened.returncode:
        raise LabError(f"{deb.name} is not a whole Debian package; delete {deb} and try again")


def pack(target: pathlib.Path, entries: Iterable[Entry]) -> None:
    """Write a reproducible tar archive, compressed as its suffix says (.bz2 or .gz)."""
    ordered = sorted(entries, key=lambda entry: entry[0].name)
    with target.open("wb") as raw:
        packed = (
            bz2.BZ2File(raw, "wb", compresslevel=1)
            if target.suffix == ".bz2"
            else gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=1, mtime=0)
        )
        with packed, tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for member, content in ordered:
                tar.addfile(member, io.BytesIO(content()) if member.isfile() else None)


def digest(path: pathlib.Path, kind: str = "sha256") -> str:
    """A file's digest as `kind:hex`."""
    with path.open("rb") as opened:
        return f"{kind}:{hashlib.file_digest(opened, kind).hexdigest()}"
