"""The SBOM of an image (CycloneDX): Debian's packages, what Asterisk is built from, and our own files."""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import sys
import tarfile
import tempfile
import uuid
from typing import Any

from engine import engine, remove
from shell import LabError, run

# In the image: what Asterisk's package is built from, with checksums, as playbook build.yml wrote it.
SOURCES = "usr/share/labredes-pbx/sources.json"
OURS = re.compile(r"usr/local/.+|usr/share/labredes-pbx/.+")
CREATED = "org.opencontainers.image.created"
ALGORITHMS = {"sha256": "SHA-256", "md5": "MD5"}
PACKAGE = "pkg:deb/debian/labredes-asterisk@"


def write(directory: pathlib.Path, image: str, name: str) -> pathlib.Path:
    """Write the SBOM of an image beside its archive; images with the same files have the same one."""
    program = pathlib.Path(sys.executable).with_name("debsbom")
    target = directory / f"{name}.cdx.json"
    shown = json.loads(engine("image", "inspect", image).stdout)[0]
    layers, created = "".join(shown["RootFS"]["Layers"]), shown["Config"]["Labels"][CREATED]
    with tempfile.TemporaryDirectory(prefix="labredes-sbom-", dir=directory) as temporary:
        tree = pathlib.Path(temporary) / "root.tar"
        made = engine("create", image, "true", image=image).stdout.strip().splitlines()[-1]
        try:
            engine("export", "--output", tree, made, timeout=300)
        finally:
            remove(made)
        options = [
            f"--timestamp={created.replace('Z', '+00:00')}",
            f"--cdx-serialnumber={uuid.uuid5(uuid.NAMESPACE_OID, layers)}",
        ]
        done = run(
            [program, "generate", "-t", "cdx", "-r", "-", *options, "-o", pathlib.Path(temporary) / "sbom"],
            stdin=tree.open("rb"),
            timeout=300,
        )
        packages = pathlib.Path(temporary) / "sbom.cdx.json"
        if not packages.exists():
            raise LabError(f"debsbom wrote no SBOM of {image}: {done.stderr}")
        target.write_text(json.dumps(complete(json.loads(packages.read_text()), tree), indent=1) + "\n")
    return target


def complete(sbom: dict[str, Any], tree: pathlib.Path) -> dict[str, Any]:
    """An SBOM of Debian's packages with the sources of Asterisk, and with the files of no package."""
    sources, files = contents(tree)
    sbom["components"] += [*sources, *files]
    if sources:
        (package,) = [entry for entry in sbom["dependencies"] if is_package(entry["ref"])]
        package["dependsOn"] = [*package.get("dependsOn", []), *(source["bom-ref"] for source in sources)]
    sbom["dependencies"] += [{"ref": component["bom-ref"]} for component in [*sources, *files]]
    return sbom


def is_package(reference: str) -> bool:
    """Whether a reference is that of Asterisk's binary package."""
    return reference.startswith(PACKAGE) and not reference.endswith("arch=source")


def contents(tree: pathlib.Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The components of the sources that the image names, and of our files in it."""
    sources: list[dict[str, Any]] = []
    files: dict[str, dict[str, Any]] = {}
    with tarfile.open(tree) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            opened = tar.extractfile(member) if member.isreg() and OURS.fullmatch(name) else None
            if opened is None:
                continue
            content = opened.read()
            if name == SOURCES:
                sources = components(json.loads(content))
            hashes = [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]
            files[name] = {"bom-ref": f"file:{name}", "type": "file", "name": f"/{name}", "hashes": hashes}
    return sources, [files[name] for name in sorted(files)]


def components(sources: dict[str, Any]) -> list[dict[str, Any]]:
    """The components of the sources: a commit of a git repository, if it is built from one, and files."""
    found = []
    if sources["commit"]:
        found.append(
            {
                "bom-ref": f"source:asterisk-{sources['release']}",
                "type": "library",
                "name": "asterisk",
                "version": sources["release"],
                "hashes": [{"alg": "SHA-1", "content": sources["commit"]}],
                "externalReferences": [{"type": "vcs", "url": f"{sources['repository']}#{sources['commit']}"}],
            }
        )
    for name, checksums in sorted(sources["files"].items()):
        pinned = [checksum.split(":") for checksum in checksums]
        hashes = [{"alg": ALGORITHMS[kind], "content": digits.lower()} for kind, digits in pinned]
        found.append({"bom-ref": f"source:{name}", "type": "library", "name": name, "hashes": hashes})
    return found
