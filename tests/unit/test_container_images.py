"""The archive of an image, what the images are defined as, and the compose file that runs them."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path

import pytest
import rendering

sys.path[:0] = [str(rendering.ROOT / "container"), str(rendering.ROOT / "lab")]
import archive  # noqa: E402  the path has to be set first
import compose  # noqa: E402
import definition  # noqa: E402

EPOCH = 1_700_000_000
SERVICES = compose.content()["services"]


def exported(path: Path, entries: list[tuple[str, object]], when: int) -> Path:
    """A root file system as an engine exports it; an entry is a content, or a link's target in a tuple."""
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mtime, member.uname = when, "builder"
            if isinstance(content, tuple):
                member.type, member.linkname = content
            elif isinstance(content, bytes):
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def written(tmp_path: Path, entries: list[tuple[str, object]], when: int = EPOCH) -> bytes:
    """The bytes of the image that is made of these files."""
    target = tmp_path / "image.tar"
    config = {"architecture": "amd64", "config": definition.IMAGES[0].config({"a": "b"}, {})}
    source = exported(tmp_path / "root.tar", entries, when)
    archive.write(source, target, "localhost/x:latest", config, EPOCH, "2023-11-14T22:13:20Z")
    return target.read_bytes()


FILES = [("etc/passwd", b"x"), ("usr/bin/a", b"program"), ("usr/bin/b", (tarfile.LNKTYPE, "usr/bin/a"))]


def test_order_and_moment_do_not_change_the_image(tmp_path):
    first = written(tmp_path, FILES, EPOCH + 5)
    other = [FILES[0], ("usr/bin/b", b"program"), ("usr/bin/a", (tarfile.LNKTYPE, "usr/bin/b"))]
    assert first == written(tmp_path, [*FILES[1:], FILES[0]], EPOCH + 99)
    assert first == written(tmp_path, other, EPOCH + 99)
    assert first != written(tmp_path, [("etc/passwd", b"y"), *FILES[1:]])


def test_what_a_build_leaves_is_not_in_the_image(tmp_path):
    left = ["var/log/dpkg.log", "var/cache/apt/x", "etc/passwd-", "etc/machine-id", "run/lock/x", "tmp/x",
            "usr/lib/python3/__pycache__/a.pyc", "var/lib/dpkg/status-old"]  # fmt: skip
    assert written(tmp_path, [*FILES, *((name, b"x") for name in left)]) == written(tmp_path, FILES)
    assert archive.wanted("run/asterisk") and archive.wanted("var/log/asterisk") and archive.wanted("var/lib/dpkg/info")


def test_day_of_a_password_does_not_change_the_image(tmp_path):
    day = [[("etc/shadow", f"root:*:{number}:0:99999:7:::\n".encode())] for number in (20000, 20001)]
    assert written(tmp_path, day[0]) == written(tmp_path, day[1])


def test_image_has_its_health_check_and_one_layer(tmp_path):
    written(tmp_path, FILES)
    with tarfile.open(tmp_path / "image.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        config = json.load(tar.extractfile(manifest["Config"]))
    assert len(manifest["Layers"]) == 1 and manifest["RepoTags"] == ["localhost/x:latest"]
    assert config["config"]["Healthcheck"]["Interval"] == 30 * 10**9
    assert config["config"]["User"] == "asterisk" and config["rootfs"]["diff_ids"] == [
        "sha256:" + manifest["Layers"][0].removesuffix(".tar")
    ]


@pytest.mark.parametrize("image", definition.IMAGES, ids=lambda image: image.name)
def test_each_image_has_its_script_and_no_root(image):
    assert (rendering.ROOT / "container" / "files" / image.name).stat().st_mode & 0o111
    assert image.user in definition.USERS and "python3" not in image.kept[:1] or image.python


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_confined_and_comes_back(name):
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["restart"] == "unless-stopped"
    assert name == "network" or service["network_mode"] == "service:network"
    assert "environment" not in service  # secrets are files


def test_only_sip_and_rtp_are_published_to_others():
    published = {port.split(":")[1]: port.split(":")[0] for port in SERVICES["network"]["ports"]}
    assert {port for port, address in published.items() if address == "127.0.0.1"} == {"5038", "8088", "8888"}
    assert {port for port, address in published.items() if address == "0.0.0.0"} == {
        *("5060", "5061", "8089", "10000-10099")
    }


def test_volumes_of_services_are_described_and_owned():
    paths = {volume.rpartition(":")[2] for volume in compose.volumes()}
    known = set(compose.content()["volumes"])
    assert {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])} == known
    assert paths <= {path for image in definition.IMAGES for path in image.directories}
