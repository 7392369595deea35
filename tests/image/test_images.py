"""What the images hold, and how they refuse to start."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import IMAGES, directory, engine

SIZE = 230_000_000
OURS = r"usr/local/sbin/labredes-.*|usr/share/labredes-pbx/.*|var/lib/asterisk/astdb\.sqlite3"
# What scripts of Debian's own packages make when they are installed, and the engine when a container starts.
MADE = (
    r"etc/(alternatives/.*|\.pwd\.lock|group|gshadow|passwd|shadow|subuid|subgid|ld\.so\.cache|environment|fstab)"
    r"|etc/(shells|timezone|localtime|motd|inputrc|nsswitch\.conf|profile|mtab|hostname|hosts|resolv\.conf)"
    r"|etc/(odbcinst\.ini|mysql/my\.cnf|pam\.d/common-.*|security/opasswd|radiusclient-ng|ssl/certs/.*|rc.\.d/.*)"
    r"|etc/dpkg/(dpkg\.cfg\.d/99mmdebstrap|origins/default)|var/lib/(dpkg|pam)/.*|var/spool/mail"
    r"|usr/bin/(n?awk|pager|pinentry)|usr/sbin/rmt|usr/local/man|usr/share/info/dir|(s?bin|lib(32|64|x32)?)"
    r"|run/\.containerenv|\.dockerenv|tmp/(all|known|merged|left)"
)


def inside(image: str, script: str) -> str:
    """The output of a shell script as root in a new container of an image."""
    return engine("run", "--rm", "--user=0", "--entrypoint=sh", f"localhost/{image}:latest", "-c", script).stdout


def test_image_of_asterisk_is_small_enough():
    size = int(engine("image", "inspect", "--format", "{{.Size}}", "localhost/labredes-pbx:latest").stdout)
    assert size <= SIZE, size


@pytest.mark.parametrize("image", IMAGES)
def test_image_has_user_health_check_and_labels(image):
    shown = json.loads(engine("image", "inspect", f"localhost/{image}:latest").stdout)[0]
    health = shown.get("HealthCheck") or shown.get("Healthcheck") or shown["Config"].get("Healthcheck")
    assert health and health["Test"][0] == "CMD", "the engine has dropped the health check"
    assert shown["Config"]["User"] in ("asterisk", "postgres", "labredes-cdr", "labredes-events")
    for label in ("org.opencontainers.image.version", "labredes.asterisk.package", "org.opencontainers.image.licenses"):
        assert shown["Config"]["Labels"].get(label), label


def test_image_of_asterisk_has_no_tools():
    programs = ["python3", "gcc", "cc", "make", "ssh", "sshd", "apt-get", "pip", "curl", "systemctl"]
    found = inside("labredes-pbx", f"for name in {' '.join(programs)}; do command -v $name || true; done")
    assert found == ""


@pytest.mark.parametrize("image", IMAGES)
def test_image_has_no_secret(image):
    script = (
        "find / -xdev \\( -name '*.key' -o -name 'key.pem' -o -name passphrase -o -name 'secrets.json' "
        "-o -name 'ssh_host*' \\) -type f; "
        "ls -A /etc/asterisk /etc/labredes-cdr /etc/labredes-events /etc/ssl/private /var/lib/labredes 2>/dev/null "
        "| grep -v : || true; "
        "grep -v ':[!*]' /etc/shadow || true"
    )
    assert inside(image, script).split() == []


def test_every_file_belongs_to_a_package_or_to_us():
    script = (
        "find / -xdev \\( -type f -o -type l \\) | sed 's,^/,,' | sort >/tmp/all; "
        "cat /var/lib/dpkg/info/*.list /var/lib/dpkg/info/*.conffiles | sed 's,^/,,' | sort -u >/tmp/known; "
        # A merged /usr: the lists of packages name /bin, and the files are in /usr/bin.
        "sed 's,^\\(bin\\|sbin\\|lib\\|lib64\\)/,usr/\\1/,' /tmp/known | sort -u >/tmp/merged; "
        "comm -23 /tmp/all /tmp/known >/tmp/left; comm -23 /tmp/left /tmp/merged"
    )
    unknown = [name for name in inside("labredes-pbx", script).split() if not re.fullmatch(f"{OURS}|{MADE}", name)]
    assert unknown == []


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("labredes-pbx", "the volume of /etc/asterisk is empty"),
        ("labredes-records", "the volume of /etc/labredes-cdr is empty"),
        ("labredes-events", "the volume of /etc/labredes-events is empty"),
    ],
)
def test_empty_volume_is_refused_in_one_sentence(image, words):
    done = engine("run", "--rm", f"localhost/{image}:latest", check=False)
    assert done.returncode == 78 and words in done.stderr and "make image-run" in done.stderr, done
    assert len([line for line in done.stderr.splitlines() if line.startswith(image)]) == 1


@pytest.mark.parametrize("image", IMAGES)
def test_root_is_refused(image):
    done = engine("run", "--rm", "--user=0", f"localhost/{image}:latest", check=False)
    assert done.returncode == 78 and "as root" in done.stderr, done


def test_sbom_has_packages_sources_and_our_files():
    for image in IMAGES:
        sbom = json.loads(Path(directory(), f"{image}.cdx.json").read_text())
        assert sbom["bomFormat"] == "CycloneDX"
        assert {"libc6", f"/usr/local/sbin/{image}"} <= {component["name"] for component in sbom["components"]}
    sbom = json.loads(Path(directory(), "labredes-pbx.cdx.json").read_text())
    pinned = {component["name"]: component.get("hashes", []) for component in sbom["components"]
              if component["bom-ref"].startswith("source:")}  # fmt: skip
    for part in (r"pjproject-.*\.tar\.bz2", r"asterisk-core-sounds-es-.*", r"asterisk-moh-.*", "mp3/common.c",
                 r"asterisk(-[0-9.]+.*\.tar\.gz)?"):  # fmt: skip
        assert any(re.fullmatch(part, name) and hashes for name, hashes in pinned.items()), part
    package = [
        entry for entry in sbom["dependencies"] if "labredes-asterisk@" in entry["ref"] and entry.get("dependsOn")
    ]
    assert {f"source:{name}" for name in pinned} <= set(package[0]["dependsOn"])


def test_sbom_of_events_has_the_libraries_that_are_bundled():
    sbom = json.loads(Path(directory(), "labredes-events.cdx.json").read_text())
    files = {component["name"]: component for component in sbom["components"] if component["type"] == "file"}
    for part in (r".*/panoramisk-.*\.whl", r".*/web/phone/jssip\.js", r".*/web/vendor/.*\.js"):
        assert any(re.fullmatch(part, name) for name in files), part
    assert all(component["hashes"][0]["alg"] == "SHA-256" for component in files.values())
