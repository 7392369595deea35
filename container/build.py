"""Builds the images: one container with all programs, installed by the roles, and of it one image for each purpose."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import os
import pathlib
import platform
import tempfile
from typing import Any

import archive
import debian_mirror
import definition
import engine as engines
import upstream
from engine import engine, remove
from shell import CACHE, LabError, lock, log, run

import lab

ROOT = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = "localhost/"
STAGE = f"{REPOSITORY}labredes-stage"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
# What decides the content of the container with all programs, and of the images besides, apart from the packages.
PROGRAMS = (
    *("container/build.yml", "container/definition.py", "roles/asterisk_package", "roles/asterisk", "roles/pbx"),
    *("roles/labredes/defaults", "roles/cdr/files", "roles/cdr/tasks", "roles/cdr/vars", "roles/events"),
    *("roles/postgresql", "roles/tls_certificate", "plugins/action", "apir_py/src"),
)
IMAGE = ("container/archive.py", "container/build.py", "container/files")
LABEL = "labredes.definition"
# Leaves the packages of one image and what they depend on; then goes what only installs packages.
REDUCE = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-mark showmanual | xargs apt-mark auto >/dev/null
apt-mark manual {kept} >/dev/null
apt-get -qq -y -o APT::AutoRemove::RecommendsImportant=false -o APT::AutoRemove::SuggestsImportant=false \
    autoremove --purge >/dev/null
dpkg --purge --force-depends apt adduser gpgv debian-archive-keyring 2>/dev/null
rm -rf {removed} /usr/sbin/policy-rc.d /etc/apt /var/lib/apt /etc/systemd /etc/logrotate.d /etc/cron* /etc/init.d/*
"""


class Suite:
    """The base of a distribution, its inventory and what is built from it."""

    def __init__(self, directory: pathlib.Path, suite: str) -> None:
        self.directory, self.suite = directory, suite
        self.lines = debian_mirror.sources(suite)
        self.settings = [*debian_mirror.settings(), 'Acquire::Retries "3";']

    def base(self, again: bool) -> str:
        """The name of the image of Debian with Python; builds it again, or when there is none of this definition."""
        text = "\n".join(
            [self.suite, *definition.PACKAGES, definition.SETUP, *definition.EXCLUDED, *self.lines, *self.settings]
        )
        name = f"{REPOSITORY}labredes-base:{self.suite}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        with lock(CACHE / "base.lock", "building the base"):
            if again or engine("image", "inspect", name, check=False).returncode:
                self._bootstrap(name)
        return name

    def _bootstrap(self, name: str) -> None:
        log(f"building the base from packages of {definition.SUITES[self.suite]} (about a minute, once)")
        with tempfile.TemporaryDirectory(prefix="labredes-base-") as temporary:
            directory = pathlib.Path(temporary)
            directory.chmod(0o755)
            (directory / "setup").write_text(definition.SETUP)
            (directory / "setup").chmod(0o755)
            (directory / "sources.list").write_text("\n".join(self.lines) + "\n")
            tree = directory / "root.tar"
            run(
                [
                    *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(definition.PACKAGES)}"),
                    *(f"--aptopt={setting}" for setting in self.settings),
                    *(f"--dpkgopt={option}" for option in definition.EXCLUDED),
                    f"--customize-hook={directory}/setup",
                    *(self.suite, tree, directory / "sources.list"),
                ],
                timeout=900,
            )
            engine("import", tree, name, timeout=300)

    def stage(self, base: str, name: str, key: str) -> None:
        """Make the image with all programs, by the roles."""
        log("installing Asterisk, PostgreSQL and the services by the roles (two minutes, or six with the compilation)")
        container, builder = (f"labredes-{purpose}-{os.getpid()}" for purpose in ("build", "compile"))
        try:
            for one in (container, builder):
                engine("run", "--detach", f"--name={one}", "--user=0", base, "sleep", "7200", image=base)
            path = self.directory / "build"
            secrets = path / "secrets"
            content = {
                "all": {"vars": {**release(), "labredes_secrets_dir": str(secrets)}},
                "pbx": {"hosts": {"image": {**connection(container), **definition.DEMO}}},
                "builders": {"hosts": {"builder": connection(builder)}},
                "databases": {},
            }
            hosts = path / "inventory" / "hosts.yml"
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text("---\n" + json.dumps(content, indent=2) + "\n")
            lab.ansible(path, ROOT / "container" / "build.yml")
            known = {file.name: file.read_text().strip() for file in (secrets / "image").iterdir()}
            engine("exec", "--interactive", container, "python3", "-c", definition.KEEP_DEMO, input=json.dumps(known))
            engine("commit", f"--change=LABEL {LABEL}={key}", container, name, timeout=300)
        finally:
            for one in (container, builder):
                remove(one)


@functools.cache
def release() -> dict[str, Any]:
    """The variables of the release of Asterisk."""
    return upstream.choose(*(os.environ.get(name, "") for name in ("RELEASE", "MIRROR", "GIT")))


def connection(container: str) -> dict[str, Any]:
    """How Ansible reaches a container, as root and without SSH."""
    return {
        "ansible_connection": "containers.podman.podman",
        "ansible_host": container,
        # By its number, so that become wraps every command in a shell, which this connection does not start itself.
        "ansible_user": "0",
        "ansible_podman_executable": engines.ENGINE,
        "ansible_become_method": "ansible.builtin.su",
        "ansible_pipelining": True,
    }


def digest(*inputs: str) -> str:
    """A digest of files of the project and of the release that is asked for, wherever its sources come from."""
    chosen = {name: value for name, value in release().items() if not name.endswith(("_mirror", "_url"))}
    listed = run(
        ["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *inputs]
    ).stdout
    total = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
    for name in sorted(filter(None, listed.split("\0"))):
        path = ROOT / name
        if path.is_file():
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def inspect(name: str) -> dict[str, Any]:
    """What the engine says of an image; empty when there is none of that name."""
    shown = engine("image", "inspect", name, check=False)
    return json.loads(shown.stdout)[0] if shown.returncode == 0 else {}


def label(name: str, key: str = LABEL) -> str:
    """A label of an image; empty where it has none."""
    known = inspect(name)
    return ((known.get("Config") or {}).get("Labels") or known.get("Labels") or {}).get(key, "")


def build(directory: pathlib.Path, suite: str, again: bool = False) -> None:
    """Build the images unless there are some of exactly these inputs."""
    key = f"{digest(*PROGRAMS, *IMAGE)}-{suite}"
    if not again and all(label(f"{REPOSITORY}{image.name}:latest") == key for image in definition.IMAGES):
        log("the images are up to date")
        return
    made = Suite(directory, suite)
    stage, programs = f"{STAGE}:{suite}", digest(*PROGRAMS)
    if again or label(stage) != programs:
        made.stage(made.base(again), stage, programs)
    facts = described(stage)
    for image in definition.IMAGES:
        reduce(image, stage, key, suite, facts, directory)


def described(stage: str) -> dict[str, str]:
    """The release, the package key and the moment of the package that the stage holds."""
    version = engine(
        *("run", "--rm", stage, "dpkg-query", "--show", "--showformat=${Version}", "labredes-asterisk"), image=stage
    ).stdout.strip()
    number, _plus, package = version.removeprefix("1:").partition("+pbx.")
    kept = sorted((CACHE / "packages").glob(f"labredes-asterisk_*_{package}.deb"))
    if not kept:
        raise LabError(f"the package {package} is not in {CACHE}/packages any more; run make image again")
    # The moment at which the package was made, which its first part notes.
    moment = int(kept[0].open("rb").read(8 + 28)[24:].split()[0])
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "") or moment)
    return {"release": number, "package": package, "epoch": str(epoch)}


def reduce(
    image: definition.Image, stage: str, key: str, suite: str, facts: dict[str, str], directory: pathlib.Path
) -> None:
    """Make one image of the container with all programs."""
    name = f"{REPOSITORY}{image.name}"
    log(f"making {name}")
    epoch = int(facts["epoch"])
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    commit = run(["git", "-C", ROOT, "rev-parse", "HEAD"], check=False).stdout.strip()
    labels = {
        "org.opencontainers.image.title": image.title,
        "org.opencontainers.image.version": facts["release"],
        "org.opencontainers.image.source": definition.SOURCE,
        "org.opencontainers.image.licenses": "GPL-3.0-or-later",
        "org.opencontainers.image.created": created,
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.base.name": f"debian:{suite}",
        "labredes.asterisk.release": facts["release"],
        "labredes.asterisk.package": facts["package"],
        LABEL: key,
    }
    container = f"labredes-reduce-{image.name}-{os.getpid()}"
    script = REDUCE.format(kept=" ".join(image.kept), removed=" ".join(image.removed))
    for path, target in image.links.items():
        script += f"ln -sfn {target} {path}\n"
    for user, group in image.groups.items():
        script += f"usermod --append --groups {group} {user}\n"
    for path, attributes in image.directories.items():
        owner, group, mode = attributes.split()
        script += f"install -d -o {owner} -g {group} -m {mode} {path}\n"
    script += f"cat >/usr/local/sbin/{image.name} <<'END-OF-ENTRYPOINT'\n"
    script += (ROOT / "container" / "files" / image.name).read_text()
    script += f"END-OF-ENTRYPOINT\nchmod 0755 /usr/local/sbin/{image.name}\n"
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="labredes-image-", dir=directory) as temporary:
        tree = pathlib.Path(temporary) / "root.tar"
        packed = directory / f"{image.name}.tar"
        try:
            engine(
                *("run", "--interactive", f"--name={container}", "--user=0", stage, "sh", "-s"),
                image=stage,
                input=script,
                timeout=300,
            )
            engine("export", "--output", tree, container, timeout=300)
        finally:
            remove(container)
        environment = {"LABREDES_RELEASE": facts["release"]}
        config = {"architecture": ARCHITECTURES[platform.machine()], "config": image.config(labels, environment)}
        tag = f"{name}:{facts['release'].replace('~', '-')}-{facts['package']}"
        archive.write(tree, packed, f"{name}:latest", config, epoch, created)
    engine("load", "--quiet", "--input", packed, timeout=300)
    engine("tag", f"{name}:latest", tag)
