"""The script that renews the certificate, or watches the administrator's own, with the real openssl."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import rendering

TEMPLATE = rendering.ROLES / "tls_certificate/templates/usr/local/sbin/labredes-certificate.j2"
USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
KNOWN = rendering.variables(rendering.FACTS["Debian 12"], {}, Path("none"), "tls_certificate")
ODD = "Ñandú & Cía., \"S.L.\" \\ #1 $HOME 'x'"


def openssl(*arguments: object) -> str:
    """The output of an openssl command."""
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=True, timeout=30
    ).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> list[str]:
    """Two private keys, small ones: a key of the script's own takes seconds."""
    places = [tmp_path_factory.mktemp("keys") / name for name in ("one", "two")]
    for place in places:
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", place)
    return [place.read_text() for place in places]


class Host:
    """A directory with a key and a passphrase, and the script for it."""

    def __init__(self, directory: Path, key: str):
        self.directory = directory / "tls"
        self.directory.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.write("key.pem", key, 0o640)
        self.write("passphrase", "kR7vTz0qWm2xBn5c\n", 0o600)
        self.settings = {
            "labredes_tls_directory": str(self.directory),
            "tls_certificate_owner": USER,
            "tls_certificate_group": GROUP,
        }

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """A file of the directory."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def run(self, verb: str = "apply", code: int = 0, **more: object) -> subprocess.CompletedProcess[str]:
        """Run the script of a description."""
        known = {**KNOWN, **self.settings, **more}
        done = subprocess.run(
            ["sh", "-c", rendering.render(TEMPLATE, known), "labredes-certificate", verb],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"},
        )
        assert done.returncode == code, done
        return done

    def changes(self, verb: str = "apply", **more: object) -> list[str]:
        """The names of the files that it says it changes."""
        return [
            Path(line.split()[-1] if line.endswith("p12") else line.split()[1]).name
            for line in self.run(verb, **more).stdout.splitlines()
        ]

    def sign(self, days: int, name: str = "certificate.pem", key: str = "key.pem") -> None:
        """A certificate that ends in so many days, of another request than the script's."""
        openssl(
            "req",
            "-x509",
            "-new",
            "-key",
            self.directory / key,
            "-subj",
            "/CN=own",
            "-days",
            days,
            "-out",
            self.directory / name,
        )

    def fingerprint(self, name: str = "certificate.pem") -> str:
        """That of a certificate."""
        return openssl("x509", "-in", self.directory / name, "-noout", "-fingerprint", "-sha256")

    def bundled(self) -> str:
        """The fingerprint of the certificate in the PKCS#12 file, which has the key as well."""
        everything = self.directory / "opened"
        openssl(
            "pkcs12",
            "-in",
            self.directory / "certificate.p12",
            "-passin",
            f"file:{self.directory}/passphrase",
            "-nodes",
            "-out",
            everything,
        )
        assert "PRIVATE KEY" in everything.read_text()
        found = self.fingerprint("opened")
        everything.unlink()
        return found


@pytest.fixture
def host(tmp_path, keys) -> Host:
    """A host that has a key and no certificate."""
    return Host(tmp_path, keys[0])


def test_certificate_is_created_once(host):
    assert host.changes("check") == ["certificate.pem"]
    assert sorted(path.name for path in host.directory.iterdir()) == ["key.pem", "passphrase"]
    assert host.changes() == ["certificate.pem", "certificate.p12"]
    assert (host.changes("check"), host.changes()) == ([], [])
    shown = openssl("x509", "-in", host.directory / "certificate.pem", "-noout", "-text")
    assert "CN = pbx1.example.org" in shown and "DNS:pbx1.example.org, IP Address:192.0.2.10" in shown
    assert "CA:FALSE" in shown and "TLS Web Server Authentication" in shown
    modes = {path.name: path.stat().st_mode & 0o777 for path in host.directory.iterdir()}
    assert modes == {"key.pem": 0o640, "passphrase": 0o600, "certificate.pem": 0o644, "certificate.p12": 0o640}
    assert host.bundled() == host.fingerprint()


def test_missing_key_is_created(host):
    (host.directory / "key.pem").unlink()
    assert host.changes("check") == ["key.pem"]
    assert host.changes() == ["key.pem", "certificate.pem", "certificate.p12"]
    assert "(4096 bit" in openssl("rsa", "-in", host.directory / "key.pem", "-noout", "-text").splitlines()[0]


def test_certificate_is_renewed_before_its_end_with_its_key(host):
    host.run(tls_certificate_days=40)
    key, old = (host.directory / "key.pem").read_text(), host.fingerprint()
    assert host.changes(tls_certificate_renew_days=39) == []
    assert host.changes(tls_certificate_renew_days=41) == ["certificate.pem", "certificate.p12"]
    assert host.fingerprint() != old and host.bundled() == host.fingerprint()
    assert (host.directory / "key.pem").read_text() == key


@pytest.mark.parametrize(
    "change",
    [
        {"tls_certificate_common_name": "other.example.org"},
        {"tls_certificate_organization": ODD},
        {"tls_certificate_alternative_names": ["IP:2001:db8::1", "URI:sip:pbx@example.org", "email:a@example.org"]},
    ],
)
def test_other_description_renews_once(host, change):
    host.run()
    assert "certificate.pem" in host.changes(**change)
    assert host.changes(**change) == []
    assert "certificate.pem" in host.changes()


def test_subject_is_taken_literally(host):
    host.run(tls_certificate_organization=ODD)
    shown = openssl(
        "x509", "-in", host.directory / "certificate.pem", "-noout", "-subject", "-nameopt", "utf8,sep_multiline"
    )
    assert f"O={ODD}" in shown.replace("    ", "")


@pytest.mark.parametrize("damage", ["key", "certificate", "bundle", "passphrase", "mode"])
def test_damage_is_repaired(host, keys, damage):
    host.run()
    if damage == "key":
        host.write("key.pem", keys[1], 0o640)
    elif damage == "certificate":
        host.write("certificate.pem", "no certificate\n")
    elif damage == "bundle":
        host.write("certificate.p12", "nothing", 0o640)
    elif damage == "passphrase":
        host.write("passphrase", "xBn5ckR7vTz0qWm2\n", 0o600)
    else:
        (host.directory / "certificate.pem").chmod(0o600)
    assert host.changes() != []
    assert host.changes() == []
    assert host.bundled() == host.fingerprint()


@pytest.mark.parametrize(
    ("program", "words", "moment"),
    [
        ("openssl", "req -new", "before"),
        ("mv", "/certificate.pem", "before"),
        ("mv", "/certificate.pem", "after"),
        ("openssl", "-export", "before"),
        ("chown", "/certificate.p12", "after"),
        ("mv", "/certificate.p12", "before"),
    ],
)
def test_killed_run_leaves_whole_files_and_is_completed(host, program, words, moment):
    host.run(tls_certificate_days=40)
    real = shutil.which(program)
    stub = host.bin / program
    now = {"before": "kill -KILL $PPID", "after": f'{real} "$@"; kill -KILL $PPID'}[moment]
    stub.write_text(f'#!/bin/sh\ncase "$*" in *"{words}"*) {now} ;; *) exec {real} "$@" ;; esac\n')
    stub.chmod(0o755)
    host.run(code=-signal.SIGKILL, tls_certificate_renew_days=41)
    stub.unlink()
    left = host.fingerprint()
    assert host.bundled()
    host.run(tls_certificate_renew_days=39)
    assert host.bundled() == host.fingerprint() == left
    assert not (host.directory / ".new").exists()


@pytest.fixture
def own(host, keys) -> Host:
    """A host with a certificate of the administrator behind links, as an ACME client keeps it."""
    host.write("privkey1.pem", keys[1], 0o640)
    (host.directory / "privkey.pem").symlink_to("privkey1.pem")
    host.sign(90, "fullchain1.pem", "privkey1.pem")
    (host.directory / "fullchain.pem").symlink_to("fullchain1.pem")
    host.settings["labredes_tls_certificate"] = f"{host.directory}/fullchain.pem"
    host.settings["labredes_tls_key"] = f"{host.directory}/privkey.pem"
    return host


def test_own_certificate_is_bundled_and_left_alone(own):
    before = own.fingerprint("fullchain.pem")
    assert own.changes() == ["certificate.p12"]
    assert own.bundled() == own.fingerprint("fullchain.pem") == before
    assert not (own.directory / "certificate.pem").exists()
    own.sign(91, "fullchain2.pem", "privkey1.pem")
    (own.directory / "fullchain.pem").unlink()
    (own.directory / "fullchain.pem").symlink_to("fullchain2.pem")
    assert own.changes() == ["certificate.p12"]
    assert own.bundled() == own.fingerprint("fullchain2.pem") != before


def test_own_certificate_close_to_its_end_is_warned_about(own):
    assert own.run(tls_certificate_warn_days=89).stderr == ""
    warned = own.run(tls_certificate_warn_days=91).stderr
    assert warned.startswith(f"<4>The certificate {own.directory}/fullchain.pem expires at ")
    assert warned.endswith("GMT, in less than 91 days; renew it with its issuer.\n")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("dangling", "There is no certificate "),
        ("key", "privkey.pem is not the key of "),
        ("text", "fullchain.pem is no certificate in PEM."),
    ],
)
def test_unusable_own_certificate_is_an_error(own, keys, fault, sentence):
    if fault == "dangling":
        (own.directory / "fullchain1.pem").unlink()
    elif fault == "key":
        own.write("privkey1.pem", keys[0])
    else:
        own.write("fullchain1.pem", "text\n")
    failed = own.run(code=1).stderr
    assert failed.startswith("<3>") and sentence in failed


@pytest.fixture
def asterisk(tmp_path, keys):
    """A function that runs the script which has Asterisk read a new certificate, against programs that answer for it.

    read: whether its user may read it; takes: whether a reload makes it serve the new one. Returns the exit code, what
    was said, and the commands that Asterisk got.
    """
    (tmp_path / "key.pem").write_text(keys[0])
    for name in ("old", "certificate"):
        openssl(
            *("req", "-x509", "-new", "-key", tmp_path / "key.pem", "-subj", f"/CN={name}"),
            *("-out", tmp_path / f"{name}.pem"),
        )
    programs = {
        "ss": "echo 'LISTEN 0 10 0.0.0.0:5061 0.0.0.0:*'; echo 'LISTEN 0 10 [::]:5061 [::]:*'",
        "timeout": 'echo "$5" >>addresses; cat served',
        "runuser": 'shift 3; [ -e read ] && exec "$@"',
        "asterisk": 'echo "$2" >>commands; [ ! -e takes ] || cp certificate.pem served',
        "sleep": "",
        "touch": 'echo "$@" >>touched',
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    description = {
        "labredes_tls_certificate": f"{tmp_path}/certificate.pem",
        "labredes_tls_key": f"{tmp_path}/key.pem",
        "labredes_sip_transports": ["tls"],
    }
    known = {**rendering.variables(rendering.FACTS["Debian 12"], description, tmp_path, "asterisk")}
    script = rendering.render(rendering.ROLES / f"asterisk/templates/usr/local/sbin/{TEMPLATE.stem}-asterisk.j2", known)

    def run(serves: str, read: bool = True, takes: bool = True) -> tuple[int, str, list[str]]:
        shutil.copy(tmp_path / f"{serves}.pem", tmp_path / "served")
        for name, there in {"read": read, "takes": takes}.items():
            if there:
                (tmp_path / name).touch()
        done = subprocess.run(
            ["sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        )
        log = tmp_path / "commands"
        return done.returncode, done.stderr, log.read_text().splitlines() if log.exists() else []

    run.addresses = tmp_path / "addresses"
    return run


def test_asterisk_that_serves_the_certificate_is_left_alone(asterisk):
    assert asterisk("certificate") == (0, "", [])
    assert asterisk.addresses.read_text().split() == ["127.0.0.1:5061", "[::1]:5061"]


def test_asterisk_that_serves_another_certificate_reloads(asterisk):
    assert asterisk("old") == (0, "", ["module reload http", "module reload res_pjsip"])


def test_certificate_that_asterisk_cannot_read_is_not_loaded(asterisk):
    code, said, commands = asterisk("old", read=False)
    assert (code, commands) == (1, []) and said.startswith("<3>The user asterisk cannot read "), said


def test_reload_without_effect_is_an_error(asterisk):
    code, said, commands = asterisk("old", takes=False)
    assert (code, len(commands)) == (1, 2)
    assert said.startswith("<3>Asterisk still serves another certificate than "), said
    assert said.endswith(" at 127.0.0.1:5061 [::1]:5061; see /var/log/asterisk/messages.\n"), said
