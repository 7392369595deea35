"""The archive of an image, what the images are defined as, and the compose file that runs them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import rendering
import yaml

sys.path[:0] = [str(rendering.ROOT / "container"), str(rendering.ROOT / "lab")]
import archive  # noqa: E402  the path has to be set first
import build  # noqa: E402
import compose  # noqa: E402
import definition  # noqa: E402
import sbom  # noqa: E402
from shell import LabError  # noqa: E402

import container  # noqa: E402

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


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"network"}))
def test_directories_of_an_image_are_no_tmpfs(name):
    """Which belongs to root, with the mode that the directory has in the image."""
    image = next(one for one in definition.IMAGES if one.name == compose.images()[name])
    assert not set(SERVICES[name].get("tmpfs", [])) & set(image.directories)


def test_place_of_the_sources_does_not_change_the_image(monkeypatch):
    def key(**chosen: str) -> str:
        monkeypatch.setattr(build, "release", lambda: chosen)
        return build.digest("LICENSE")

    assert key(asterisk_package_mirror="/a", release="1") == key(asterisk_package_mirror="/b", release="1")
    assert key(release="1") != key(release="2")


@pytest.mark.parametrize("kind", ["udp", "tcp"])
def test_taken_port_is_refused_with_the_cure(kind, monkeypatch):
    for variable in ("LABREDES_SIP_ADDRESS", "LABREDES_API_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        if kind == "tcp":
            taken.listen()
        for variable in ("LABREDES_SIP_ADDRESS", "LABREDES_API_ADDRESS"):
            address = f"${{{variable}:-127.0.0.1}}"
            with pytest.raises(LabError, match=rf"port {port} \({kind}\) of 127.0.0.1 .* set {variable}"):
                compose.check_ports([f"{address}:{port - 1}-{port}:10000-10001/{kind}"])
    compose.check_ports([f"{address}:{port}:{port}/{kind}"])


@pytest.mark.parametrize(("user", "program", "has_route"), [(0, "podman", True), (1000, "podman", False),
                                                            (1000, "docker", True)])  # fmt: skip
def test_podman_of_a_user_has_no_route_to_containers(monkeypatch, user, program, has_route):
    monkeypatch.setattr(container.os, "geteuid", lambda: user)
    monkeypatch.setattr(container.engines, "ENGINE", program)
    assert container.reachable("127.0.0.1") == has_route


def test_compose_file_takes_the_environment(monkeypatch):
    monkeypatch.setenv("LABREDES_SIP_ADDRESS", "192.0.2.1")
    monkeypatch.setenv("LABREDES_IMAGE", "")
    assert compose.content()["services"]["network"]["ports"][0] == "192.0.2.1:5060:5060/udp"
    assert compose.images()["pbx"] == "labredes-pbx"


SOURCES = {"release": "22.10.1", "repository": "https://example.org/asterisk", "commit": "f" * 40,
           "files": {"pjproject-2.17.tar.bz2": ["sha256:" + "A" * 64, "md5:" + "b" * 32]}}  # fmt: skip


@pytest.mark.parametrize("commit", ["f" * 40, ""])
def test_sbom_has_sources_and_our_files(tmp_path, commit):
    described = json.dumps({**SOURCES, "commit": commit}).encode()
    tree = exported(
        tmp_path / "root.tar",
        [("usr/local/sbin/ours", b"#!"), ("usr/bin/theirs", b"x"), (sbom.SOURCES, described)],
        EPOCH,
    )
    package = f"{sbom.PACKAGE}1:22?arch=amd64"
    listed = [{"ref": package, "dependsOn": ["libc"]}, {"ref": f"{sbom.PACKAGE}1:22?arch=source"}]
    done = sbom.complete({"components": [], "dependencies": listed}, tree)
    known = {component["bom-ref"]: component for component in done["components"]}
    assert known["source:pjproject-2.17.tar.bz2"]["hashes"] == [
        {"alg": "SHA-256", "content": "a" * 64},
        {"alg": "MD5", "content": "b" * 32},
    ]
    sources = ["source:asterisk-22.10.1"] * bool(commit) + ["source:pjproject-2.17.tar.bz2"]
    assert done["dependencies"][0] == {"ref": package, "dependsOn": ["libc", *sources]}
    assert {entry["ref"] for entry in done["dependencies"][2:]} == set(known)
    assert known["file:usr/local/sbin/ours"]["hashes"][0]["content"] == hashlib.sha256(b"#!").hexdigest()
    assert "file:usr/bin/theirs" not in known and ("source:asterisk-22.10.1" in known) == bool(commit)


def test_demo_is_kept_without_its_secrets(tmp_path):
    source, target = tmp_path / "asterisk", tmp_path / "demo"
    source.mkdir()
    (source / "pjsip.conf").write_text("password = Abcdefgh12345678\nport = 5060\n")
    (source / "voicemail.conf").write_text("6001 => 506012,Ana,x506012,5060123\n")
    program = definition.KEEP_DEMO.replace("/etc/asterisk", str(source)).replace(
        "/usr/share/labredes-pbx/demo", str(target)
    )
    secrets = {"phone_6001": "Abcdefgh12345678", "mailbox_6001": "506012", "tls_p12": "Zyxwvuts87654321"}
    subprocess.run([sys.executable, "-c", program], input=json.dumps(secrets), text=True, check=True)
    assert (target / "pjsip.conf").read_text() == "password = @phone_6001@\nport = 5060\n"
    assert (target / "voicemail.conf").read_text() == "6001 => @mailbox_6001@,Ana,x506012,5060123\n"
    assert (target / "secrets").read_text() == "mailbox_6001\nphone_6001\n" and not list(source.iterdir())


def pod() -> dict:
    """The pod of Kubernetes in docs/image.md."""
    page = (rendering.ROOT / "docs" / "image.md").read_text()
    block = re.search(r"(?m)^    apiVersion: v1\n(?:    .*\n|\n)+", page)[0]
    return yaml.safe_load(re.sub(r"(?m)^    ", "", block))


@pytest.mark.parametrize("index", [0, 1])
def test_pod_of_the_page_is_as_the_compose_file(index):
    container = pod()["spec"]["containers"][index]
    service = SERVICES[container["name"]]
    mounted = {(one["name"], one["mountPath"], bool(one.get("readOnly"))) for one in container["volumeMounts"]}
    volumes = [volume.split(":") for volume in service["volumes"]]
    assert mounted == {(name, path, mode == ["ro"]) for name, path, *mode in volumes} | {("tmp", "/tmp", False)}
    image = next(one for one in definition.IMAGES if one.name == compose.images()[container["name"]])
    context = container["securityContext"]
    assert context["runAsUser"] == context["runAsGroup"] == definition.USERS[image.user]
    assert context["readOnlyRootFilesystem"] is True and context["capabilities"] == {"drop": ["ALL"]}
    assert {one["name"] for one in container["volumeMounts"]} <= {one["name"] for one in pod()["spec"]["volumes"]}
    assert pod()["spec"]["hostNetwork"] is True
