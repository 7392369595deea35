"""The finished host as an administrator sees it: processes, files, permissions, ports, logs."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).resolve().parents[2] / "roles"
# Text columns with their width; accountcode and peeraccount as wide as Asterisk lets them grow.
CDR = {
    "calldate": None,
    "clid": 80,
    "src": 80,
    "dst": 80,
    "dcontext": 80,
    "channel": 80,
    "dstchannel": 80,
    "lastapp": 80,
    "lastdata": 80,
    "duration": None,
    "billsec": None,
    "disposition": 45,
    "amaflags": None,
    "accountcode": 80,
    "uniqueid": 150,
    "userfield": 255,
    "peeraccount": 80,
    "linkedid": 150,
    "sequence": None,
    "connected": None,
    "released": None,
}
MODULES = "/usr/lib/asterisk/modules"


@pytest.fixture(scope="session")
def properties(on_lab):
    """Properties of the unit asterisk.service."""
    shown = on_lab("systemctl show asterisk.service --property=Type,User,Group,ActiveState,SubState,NRestarts")
    return dict(line.split("=", 1) for line in shown.splitlines())


@pytest.fixture(scope="session")
def described(lab_directory) -> dict:
    """The variables of the host's inventory, over the default of the release."""
    release = yaml.safe_load((ROLES / "asterisk_package/defaults/main.yml").read_text())["asterisk_package_release"]
    inventory = yaml.safe_load((lab_directory / "inventory/hosts.yml").read_text())
    return {"asterisk_package_release": release, **inventory["all"]["vars"]}


@pytest.fixture(scope="session")
def wanted_options(described) -> list[str]:
    """The build options that this release is described with."""
    table = yaml.safe_load((ROLES / "asterisk_package/vars/main/pinned_sources.yml").read_text())
    options = yaml.safe_load((ROLES / "asterisk_package/defaults/main.yml").read_text())
    releases = {**table["__asterisk_package_releases"], **described.get("asterisk_package_extra_releases", {})}
    lacks = releases[described["asterisk_package_release"]].get("lacks", [])
    language = yaml.safe_load((ROLES / "labredes/defaults/main/language.yml").read_text())["labredes_language"]
    language = described.get("labredes_language", language).upper()
    names = [re.sub(r"{{.*}}", language, name) for name in options["asterisk_package_default_enable"]]
    return [name for name in names if name not in lacks]


def secrets(entry) -> list[str]:
    """Every password, secret and PIN that `make lab-info` prints."""
    found = []
    for key, value in entry.items():
        if isinstance(value, dict):
            found += secrets(value)
        elif value and key in ("password", "secret", "pin"):
            found.append(value)
    return found


def test_lab_info_is_complete(lab):
    assert set(lab) == {"host", "ssh", "sip", "phones", "mailboxes", "ami", "ari", "events", "webrtc_phone", "database"}
    assert set(lab["ssh"]) == {"port", "user", "key_file"} and lab["ssh"]["port"] == 3524
    assert set(lab["sip"]) == {"udp", "tcp", "tls", "wss"}
    assert {"6001", "6002", "6003"} <= set(lab["phones"]) and all(
        len(phone["password"]) >= 12 for phone in lab["phones"].values()
    )
    assert all(lab["ami"][name] for name in ("host", "port", "user", "secret"))
    assert all(lab["ari"][name] for name in ("url", "user", "password"))
    assert all(lab["events"][name] for name in ("user", "password")) and lab["events"]["url"].endswith(":8888")
    assert set(lab["webrtc_phone"]) == {"number", "password"} and lab["webrtc_phone"]["number"] not in lab["phones"]
    assert all(lab["database"][name] for name in ("host", "port", "name", "user", "password"))
    assert len(set(secrets(lab))) == len(secrets(lab)), "a secret is used twice"


def test_sshd_accepts_keys_only_on_its_port(on_lab):
    effective = dict(line.split(" ", 1) for line in on_lab("sshd -T").splitlines() if " " in line)
    assert effective["port"] == "3524"
    for name in ("passwordauthentication", "permitemptypasswords", "x11forwarding"):
        assert effective[name] == "no", name
    assert effective["authenticationmethods"] == "publickey"
    assert effective["permitrootlogin"] in ("no", "without-password", "prohibit-password")
    listening = on_lab("ss -Hltnp | grep sshd").splitlines()
    assert listening and all(":3524 " in line for line in listening), listening
    assert not on_lab("ls /etc/ssh/*.before-labredes /etc/ssh/*.new 2>/dev/null || true"), (
        "a change of sshd is not confirmed"
    )


def test_asterisk_runs_as_its_user_and_notifies_systemd(host, properties):
    assert host.service("asterisk").is_running and host.service("asterisk").is_enabled
    assert (properties["User"], properties["Group"]) == ("asterisk", "asterisk")
    assert properties["Type"] == "notify"
    assert (properties["ActiveState"], properties["SubState"], properties["NRestarts"]) == ("active", "running", "0")
    assert [process.user for process in host.process.filter(comm="asterisk")] == ["asterisk"]


def test_every_build_option_is_installed(on_lab, wanted_options):
    modules = set(on_lab(f"ls {MODULES}").split())
    wanted = {f"{name}.so" for name in wanted_options if name.islower()}
    assert len(wanted) > 8 and wanted - modules == set()
    assert not [name for name in modules if name.startswith("test_")], "modules that only test Asterisk itself"
    for name in wanted_options:
        if sounds := re.match(r"CORE-SOUNDS-(\w+)-(\w+)$", name):
            place, suffix = f"/var/lib/asterisk/sounds/{sounds[1].lower()}", sounds[2].lower()
            assert int(on_lab(f"ls {place}/*.{suffix} | wc -l")) > 250, name
        elif name.startswith("MOH-"):
            assert int(on_lab("ls /var/lib/asterisk/moh | wc -l")) > 2


def test_every_module_of_modules_conf_runs(on_lab):
    wanted = set(re.findall(r"^(?:pre)?load => (\S+)$", on_lab("cat /etc/asterisk/modules.conf"), re.MULTILINE))
    shown = on_lab("asterisk -rx 'module show'")
    running = {
        line.split()[0] for line in shown.splitlines() if re.search(r"\bRunning\b", line) and "Not Running" not in line
    }
    assert len(wanted) > 50 and wanted - running == set()


def test_package_has_the_described_release(host, on_lab, described):
    release = described["asterisk_package_release"].replace("-", "~")
    package = host.package("labredes-asterisk")
    assert package.is_installed and re.fullmatch(rf"1:{re.escape(release)}\+pbx\.[0-9a-f]{{12}}", package.version)
    assert not host.package("asterisk").is_installed and not host.package("asterisk-modules").is_installed
    assert release.split("~")[0] in on_lab("asterisk -V")
    assert on_lab("dpkg --verify labredes-asterisk") == "", "files are not as the package has them"
    assert on_lab("dpkg --audit") == ""


def test_etc_asterisk_has_only_files_of_the_roles(host, on_lab):
    templates = {path.name.removesuffix(".j2") for path in ROLES.glob("*/templates/etc/asterisk/*.j2")}
    listed = on_lab("cd /etc/asterisk && stat --format='%n %a %U:%G' *").splitlines()
    # A file that only a later release reads is not written for an earlier one, and that of events only with them.
    others = {"websocket_client.conf", "cel_sqlite3_custom.conf"}
    assert templates - others <= {line.split()[0] for line in listed} <= templates
    assert [line for line in listed if not line.endswith(" 640 root:asterisk")] == []
    place = host.file("/etc/asterisk")
    assert (place.mode, place.user, place.group) == (0o750, "root", "asterisk")
    assert on_lab("cd /etc/asterisk && grep -L 'Ansible managed' * || true") == ""


def test_secrets_are_not_world_readable(on_lab, lab):
    patterns = " ".join(f"-e '{secret}'" for secret in secrets(lab))
    open_files = "find /etc /home /opt /run /srv /usr/local /var -xdev -type f -perm -o=r -print0"
    assert on_lab(f"{open_files} | xargs -0 grep -lsF {patterns} || true") == ""


def test_secrets_are_not_in_logs(on_lab, lab):
    patterns = " ".join(f"-e '{secret}'" for secret in secrets(lab))
    # sudo and sshd log this very command, so their logs are left out.
    assert (
        on_lab(f"grep -rlsF {patterns} /var/log --include='*' --exclude-dir=journal | grep -v auth.log || true") == ""
    )
    assert (
        on_lab(
            "journalctl --no-pager --quiet _COMM=asterisk + _COMM=postgres + _COMM=python3"
            f" | grep -cF {patterns} || true"
        ).strip()
        == "0"
    )


def test_console_is_limited_to_the_group_asterisk(on_lab):
    nobody = "setpriv --reuid=65534 --regid=65534"
    member = on_lab(f"{nobody} --groups=$(getent group asterisk | cut -d: -f3) asterisk -rx 'core show version'")
    assert member.startswith("Asterisk ")
    assert (
        "Asterisk "
        not in on_lab(f"{nobody} --clear-groups asterisk -rx 'core show version' 2>&1 || true").splitlines()[0][:9]
    )


def test_radius_configuration_is_linked(host):
    assert host.file("/etc/radiusclient-ng").linked_to == "/etc/radcli"
    assert host.file("/etc/radiusclient-ng/radiusclient.conf").is_file


def test_certificate_is_rsa_4096_valid_for_a_year(host, on_lab, lab):
    place = "/etc/ssl/labredes"
    assert "(4096 bit" in on_lab(f"openssl rsa -in {place}/key.pem -noout -text | head -1")
    shown = on_lab(f"openssl x509 -in {place}/certificate.pem -noout -dates -ext subjectAltName")
    begin, end = (
        datetime.strptime(re.search(rf"{name}=(.*) GMT", shown)[1], "%b %d %H:%M:%S %Y")
        for name in ("notBefore", "notAfter")
    )
    assert (end - begin).days == 365
    assert f"IP Address:{lab['host']}" in shown and "DNS:" in shown
    on_lab(f"openssl verify -CAfile {place}/certificate.pem {place}/certificate.pem")  # as of today
    of_key = on_lab(f"openssl pkey -in {place}/key.pem -pubout")
    assert of_key == on_lab(f"openssl x509 -in {place}/certificate.pem -noout -pubkey")
    for name in ("key.pem", "certificate.p12"):
        file = host.file(f"{place}/{name}")
        assert (file.mode, file.user, file.group) == (0o640, "root", "asterisk"), name


def test_pkcs12_needs_its_passphrase(on_lab, lab_directory):
    passphrase = next((lab_directory / "secrets").glob("*/tls_passphrase")).read_text().strip()
    openssl = "openssl pkcs12 -in /etc/ssl/labredes/certificate.p12 -passin stdin -passout pass:x 2>&1 || true"
    line = "printf '%s' '{}' | " + openssl
    opened = on_lab(line.format(passphrase))
    assert "BEGIN CERTIFICATE" in opened and "PRIVATE KEY" in opened
    assert "PRIVATE KEY" not in on_lab(line.format("wrong"))


def test_cdr_table_has_every_column_in_full_width(database):
    with database.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, character_maximum_length FROM information_schema.columns WHERE table_name = 'cdr'"
        )
        found = dict(cursor.fetchall())
    assert found.pop("id", "none") is None
    assert found == CDR


def test_odbc_connects_to_the_database(on_lab):
    shown = on_lab("asterisk -rx 'odbc show'")
    assert re.search(r"Name:\s+asterisk\b", shown), shown
    assert re.search(r"Number of active connections: [1-9]", shown), shown


def test_cdr_pgsql_is_connected(on_lab):
    assert on_lab("asterisk -rx 'cdr show pgsql status'").startswith("Connected to asterisk@")


def test_only_sip_wss_events_and_ssh_listen_publicly(on_lab):
    """AMI and ARI can run commands, and the database is used by the exchange alone."""
    tcp = {line.split()[3] for line in on_lab("ss -Hltn").splitlines()}
    inside = {address for address in tcp if re.match(r"127\.|\[::1\]|\[::ffff:127\.", address)}
    ports = {address.rsplit(":", 1)[1] for address in tcp - inside}
    assert ports == {"3524", "5060", "5061", "8089", "8888"}, tcp
    assert {"127.0.0.1:5038", "127.0.0.1:8088"} <= inside


def test_asterisk_starts_without_warnings(on_lab):
    """Later ones may come from a caller, such as these tests, or from a contact that has expired meanwhile.

    pjproject 2.15.1 (Asterisk 18.26.4) has one for each TLS connection that is accepted without a client's certificate.
    """
    known = "func_pjsip_contact|pjproject: .* Error reading CA certificates from buffer$"
    lines = on_lab("cat /var/log/asterisk/messages").splitlines()
    begun = max(number for number, line in enumerate(lines) if "modules will be loaded" in line)
    started = datetime.fromisoformat(lines[begun][1:24])
    warnings = [
        line
        for line in lines[begun:]
        if re.match(rf"\[[^]]+\] (WARNING|ERROR)\[(?!.*(?:{known}))", line)
        and datetime.fromisoformat(line[1:24]) < started + timedelta(seconds=10)
    ]
    assert warnings == []


def test_no_unit_has_failed(on_lab):
    assert on_lab("systemctl --failed --no-legend --plain") == ""
