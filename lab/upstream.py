"""Where the lab's Asterisk comes from: upstream if it can be reached, else Debian's source package.

The second way exists for the lab alone. It fills a mirror directory with files named as upstream names
them and describes them as a release of their own (`22.10.1-debian`), so that the role needs no exception.
"""

from __future__ import annotations

import bz2
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

import debian
from shell import CACHE, LabError, alone, run, say

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


def choose(release: str, mirror: str, git: str) -> dict[str, object]:
    """The role's variables for a release (empty: the role's default) from a mirror, a git or upstream."""
    if mirror and "://" not in mirror:
        if not pathlib.Path(mirror).is_dir():
            raise LabError(f"MIRROR={mirror} is no directory; give one that holds the sources, or a URL")
        mirror = str(pathlib.Path(mirror).resolve())
    chosen: dict[str, object] = {
        "asterisk_package_release": release,
        "asterisk_package_mirror": mirror,
        "asterisk_package_git_url": git,
    }
    if mirror or git or reachable():
        described = pathlib.Path(mirror or "/nonexistent") / "release.json"
        if described.is_file():
            # A mirror whose files are not upstream's own bytes says what pins them, as the one below does.
            chosen["asterisk_package_extra_releases"] = {release or DEFAULT: json.loads(described.read_text())}
        return {name: value for name, value in chosen.items() if value}
    version, entry, place = from_debian()
    wanted = f"Asterisk {release}" if release else "Asterisk"
    say(
        f"upstream's sources of {wanted} cannot be reached from here; this lab gets Debian's Asterisk {version} instead"
    )
    return {
        "asterisk_package_release": f"{version}-debian",
        "asterisk_package_mirror": str(place),
        "asterisk_package_extra_releases": {f"{version}-debian": entry},
    }


def from_debian() -> tuple[str, dict[str, object], pathlib.Path]:
    """Debian's Asterisk as (version, release entry, mirror directory); fills the directory once."""
    with alone(CACHE / "mirror.lock", "fetching Debian's Asterisk"):
        # release.json is written last: a directory without it is not there.
        # One made for other sounds than today's is not there either.
        wanted = {f"{package}-{number}.tar.gz" for package, (_, number) in SOUNDS.items()}
        stamps = [
            stamp
            for stamp in sorted(MIRRORS.glob("debian-*/release.json"), key=lambda path: path.stat().st_mtime)
            if wanted <= set(json.loads(stamp.read_text())["checksums"])
        ]
        place = stamps[-1].parent if stamps else fill()
    return place.name.removeprefix("debian-"), json.loads((place / "release.json").read_text()), place


def fill() -> pathlib.Path:
    """Fetch and repack Debian's sources and sounds: 75 MB, about a minute."""
    say("fetching Debian's source package of Asterisk and its sounds (75 MB, about a minute, once)")
    suite = debian.Suite("sid")
    suite.update()
    full = suite.source_version("asterisk")
    version = re.match(r"(?:\d+:)?([0-9.]+)", full)[1]
    place = MIRRORS / f"debian-{version}"
    partial = MIRRORS / f"debian-{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    (partial / "mp3").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="labredes-asterisk-", dir=MIRRORS) as room:
        tree = pathlib.Path(room) / f"asterisk-{version}"
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
    for deb, (package, (inside, number)) in zip(suite.binaries(list(SOUNDS)), SOUNDS.items()):
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
    partial.rename(place)
    shutil.rmtree(suite.room / "download")
    return place


def pack_pjproject(tree: pathlib.Path, target: pathlib.Path) -> dict[str, object]:
    """Pack Debian's pjproject as the tarball that Asterisk's build expects, and tell the tree its md5."""
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
                (target / pathlib.PurePath(member.name).name).write_bytes(tar.extractfile(member).read())


Entry = tuple[tarfile.TarInfo, Callable[[], bytes]]


def entry_of(member: tarfile.TarInfo, name: str) -> tarfile.TarInfo:
    """A member with nothing in it that depends on the day, the machine or the user."""
    plain = tarfile.TarInfo(name)
    plain.type, plain.linkname, plain.size = member.type, member.linkname, member.size
    plain.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return plain


def from_tree(tree: pathlib.Path, top: str) -> Iterable[Entry]:
    """The content of a directory under the name `top`."""
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as probe:
        for path in [tree, *tree.rglob("*")]:
            member = probe.gettarinfo(path)
            probe.inodes.clear()  # two links to one file are two files
            yield entry_of(member, str(pathlib.PurePath(top) / path.relative_to(tree))), path.read_bytes


def from_deb(deb: pathlib.Path, inside: str) -> Iterable[Entry]:
    """The content of one directory of a Debian package, and the package's copyright file."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as opened:
        with tarfile.open(fileobj=opened.stdout, mode="r|") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name.startswith(inside) and len(name) > len(inside):
                    name = name.removeprefix(inside)
                elif name.endswith("/copyright"):
                    name = f"LICENSE-{deb.name.split('_')[0]}"
                else:
                    continue
                content = tar.extractfile(member).read() if member.isfile() else b""
                yield entry_of(member, name), lambda content=content: content
    if opened.returncode:
        raise LabError(f"{deb.name} is not a whole Debian package; delete {deb} and try again")


def pack(target: pathlib.Path, entries: Iterable[Entry]) -> None:
    """Write a tar archive whose bytes follow from its content alone; .bz2 or .gz by its name."""
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
