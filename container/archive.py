"""A container image as one layer with the same bytes for the same files, in the format that podman and docker load."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

# What a build leaves behind and no image needs: logs, caches, downloads, the state of the machine that built it.
# Directories stay, since programs expect them.
LEFT_BEHIND = re.compile(
    r"(var/log|var/cache|var/tmp|tmp|run|root|var/lib/apt/lists|var/lib/systemd)/.+"
    r"|(var/lib/dpkg|var/cache/debconf|etc)/[^/]+(-old|-)"
    r"|etc/(machine-id|resolv\.conf|hostname|hosts|mtab)|var/lib/dbus/machine-id|var/lib/apt/extended_states"
    r"|.*/__pycache__(/.*)?|\.dockerenv|(dev|proc|sys)/.+"
)
KEPT = re.compile(
    r"run/(asterisk|postgresql|labredes-cdr|labredes-events|lock)$|var/log/(asterisk|postgresql)$|var/cache/ldconfig$"
)
SHADOW = re.compile(rb"(?m)^([^:]+:[^:]*:)\d+:")


def wanted(name: str) -> bool:
    """Whether a path of the root file system belongs into the image."""
    return bool(KEPT.match(name)) or not LEFT_BEHIND.fullmatch(name)


def members(archive: tarfile.TarFile, epoch: int) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """The files of an exported container, sorted, without what depends on the moment or the machine."""
    entries = {name: entry for entry in archive if (name := entry.name.removeprefix("./").strip("/")) and wanted(name)}
    first: dict[str, str] = {}  # of each hard link: the name under which its content comes
    for name in sorted(entries):
        entry = entries[name]
        plain = tarfile.TarInfo(name)
        plain.type, plain.mode, plain.uid, plain.gid = entry.type, entry.mode, entry.uid, entry.gid
        plain.mtime, plain.linkname = min(int(entry.mtime), epoch), entry.linkname
        plain.devmajor, plain.devminor = entry.devmajor, entry.devminor
        content = None
        if entry.isreg() or entry.islnk():
            target = entry.linkname.removeprefix("./").strip("/") if entry.islnk() else name
            if target in first:
                plain.type, plain.linkname = tarfile.LNKTYPE, first[target]
            else:
                first[target] = name
                plain.type, plain.linkname = tarfile.REGTYPE, ""
                opened = archive.extractfile(entry)
                content = opened.read() if opened else b""
                if name == "etc/shadow":  # the day of the last change
                    content = SHADOW.sub(rb"\g<1>%d:" % (epoch // 86400), content)
                plain.size = len(content)
        yield plain, content


def layer(source: pathlib.Path, target: pathlib.Path, epoch: int) -> str:
    """Write the layer of an exported root file system; returns its sha256."""
    with (
        tarfile.open(source) as exported,
        target.open("wb") as raw,
        tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as written,
    ):
        for entry, content in members(exported, epoch):
            written.addfile(entry, io.BytesIO(content) if content is not None else None)
    digest = hashlib.sha256()
    with target.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write(
    source: pathlib.Path, target: pathlib.Path, name: str, config: Mapping[str, Any], epoch: int, created: str
) -> str:
    """Write an image archive (docker-archive) from an exported root file system; returns the image's id."""
    unpacked = target.with_suffix(".layer")
    try:
        digest = layer(source, unpacked, epoch)
        described = {
            "architecture": config["architecture"],
            "os": "linux",
            "created": created,
            "config": config["config"],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": created, "created_by": "labredes.pbx: make image"}],
        }
        text = json.dumps(described, sort_keys=True).encode()
        identifier = hashlib.sha256(text).hexdigest()
        manifest = [{"Config": f"{identifier}.json", "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
        with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as written:
            for file, content in (
                (f"{identifier}.json", text),
                ("manifest.json", json.dumps(manifest, sort_keys=True).encode()),
            ):
                entry = tarfile.TarInfo(file)
                entry.size, entry.mtime, entry.mode = len(content), epoch, 0o644
                written.addfile(entry, io.BytesIO(content))
            entry = tarfile.TarInfo(f"{digest}.tar")
            entry.size, entry.mtime, entry.mode = unpacked.stat().st_size, epoch, 0o644
            with unpacked.open("rb") as opened:
                written.addfile(entry, opened)
    finally:
        unpacked.unlink(missing_ok=True)
    return identifier
