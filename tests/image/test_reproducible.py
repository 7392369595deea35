"""Two builds from the start, of the base and the programs too, are the same byte for byte."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from conftest import COMMAND, IMAGES, directory


@pytest.fixture(scope="module")
def again(info, tmp_path_factory) -> Path:
    """The directory of a second build."""
    made = tmp_path_factory.mktemp("again")
    for action in (["image", "--again"], ["sbom"]):
        done = subprocess.run([*COMMAND, *action, "--dir", str(made)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return made


def described(archive: Path) -> dict:
    """The configuration of an image, with the digest of its layer; the commit is left out."""
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
    del config["config"]["Labels"]["org.opencontainers.image.revision"]
    return config


def files(archive: Path) -> dict[str, tuple]:
    """Every file of an image with what describes it, and a digest of its content."""
    with tarfile.open(archive) as outer:
        (name,) = [name for name in outer.getnames() if name.endswith(".tar")]
        with tarfile.open(fileobj=outer.extractfile(name)) as tar:
            return {
                member.name: (member.mode, member.uid, member.gid, member.mtime, member.type, member.linkname,
                              hash(tar.extractfile(member).read()) if member.isreg() else None)
                for member in tar
            }  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
def test_second_build_is_the_same(again, image):
    first, second = Path(directory(), f"{image}.tar"), again / f"{image}.tar"
    if described(first) != described(second):
        one, other = files(first), files(second)
        pytest.fail(f"differ: {sorted(name for name in one | other if one.get(name) != other.get(name))}")


@pytest.mark.parametrize("image", IMAGES)
def test_second_sbom_is_the_same(again, image):
    first, second = (Path(path, f"{image}.cdx.json") for path in (directory(), again))
    assert first.read_text() == second.read_text()
