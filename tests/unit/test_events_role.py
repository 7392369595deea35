"""What role events writes: the service reads it, it says what the inventory says, and every run writes the same."""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path

import pytest
import rendering
from ansible_collections.labredes.pbx.plugins.filter.scrypt_hash import scrypt_hash

sys.path.insert(0, str(rendering.ROOT / "apir_py/src"))
from apir_py import config, passwords  # noqa: E402  the path has to be set first

FILES = rendering.ROLES / "events/templates/etc"


def service_file(directory: Path, **description: object) -> config.Config:
    """The configuration of the service as it reads the file that the role writes for a description."""
    known = rendering.variables(rendering.FACTS["Debian 11"], description, directory / "secrets", "events")
    for name in ("ami_secret", "database_password"):
        (directory / name).write_text(rendering.render(FILES / f"labredes-events/{name}.j2", known))
    text = rendering.render(FILES / "labredes-events/service.ini.j2", known)
    (directory / "service.ini").write_text(
        text.replace("/etc/labredes-events", str(directory)).replace("/var/lib/labredes-events", str(directory))
    )
    return config.read_config(str(directory / "service.ini"))


def unit(system: str, directory: Path) -> str:
    """The unit of the service on a distribution."""
    known = rendering.variables(rendering.FACTS[system], {}, directory, "events")
    return rendering.render(FILES / "systemd/system/labredes-events.service.j2", known)


def test_service_reads_what_is_described(tmp_path):
    (tmp_path / "secrets" / rendering.HOST).mkdir(parents=True)
    for name in ("ami_events", "events_operator", "database_reader_password"):
        (tmp_path / "secrets" / rendering.HOST / name).write_text(f"kR7vTz0q.{name}.Wm2\n")
    read = service_file(tmp_path)
    assert (read.exchange.address, read.exchange.username) == ("127.0.0.1:5038", "events")
    assert read.exchange.secret == "kR7vTz0q.ami_events.Wm2"
    assert (read.port, read.addresses, read.language) == (8888, ["0.0.0.0", "::"], "es")
    assert read.names == {
        "6001": "Paquito Txokolatero",
        "6002": "Jose Ortega y Gasset",
        "6003": "Manuela Carmena Vuelve",
        "8001": "ColaUno",
    }
    assert read.agents == {"6001": "Mark Spencer", "6002": "Tommy Jerry", "6003": "Aitor Menta"}
    assert (read.queues, read.conferences) == ({"ColaUno": "8001"}, ["6000"])
    assert read.mailboxes == list(read.phones) == ["6001", "6002", "6003"] and not any(read.phones.values())
    assert read.phone == "", "no phone is a browser's"
    assert read.database and (read.database.user, read.database.password, read.database.table) == (
        "asterisk_reader",
        "kR7vTz0q.database_reader_password.Wm2",
        "cdr",
    )
    assert passwords.verify("kR7vTz0q.events_operator.Wm2", read.users["operator"].password)


def test_service_reads_an_unusual_description(tmp_path):
    read = service_file(tmp_path, **rendering.UNUSUAL)
    assert read.port == 9443
    assert [str(network) for network in read.metrics_networks[2:]] == ["192.0.2.9/32", "2001:db8::/32"]
    assert passwords.verify("kR7vTz0q.Wm2~xBn5c", read.users["panel"].password)
    assert list(read.users["panel"].sees.events) == ["Queue*", "Agent*"]
    assert list(read.users["shift-2"].sees.channels) == ["PJSIP/200"]
    assert read.phones["200"] and read.phone == "ws://127.0.0.1:8088/ws"
    assert "200" not in read.mailboxes and "201" in read.mailboxes
    assert read.names["201"] == "Teléfono 201 d'Émile"


@pytest.mark.parametrize(
    ("bind", "host"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.10", "192.0.2.10"), ("::1", "::1")]
)
def test_service_connects_where_ami_listens(tmp_path, bind, host):
    assert service_file(tmp_path, labredes_ami_bind=bind).exchange.host == host
    known = rendering.variables(rendering.FACTS["Debian 11"], {"labredes_ami_bind": bind}, tmp_path, "asterisk")
    text = rendering.render(rendering.ROLES / "asterisk/templates/etc/asterisk/manager.conf.j2", known)
    permitted = [line.split(" = ")[1] for line in text.split("[events]")[1].splitlines() if line.startswith("permit")]
    assert any(ipaddress.ip_address(host) in ipaddress.ip_network(network) for network in permitted), permitted


def test_ami_user_of_the_service_changes_nothing(tmp_path):
    known = rendering.variables(rendering.FACTS["Debian 11"], {}, tmp_path, "asterisk")
    template = rendering.ROLES / "asterisk/templates/etc/asterisk/manager.conf.j2"
    text = rendering.render(template, known)
    assert "enabled = yes" in text and "write = reporting\n" in text.split("[events]")[1]
    assert "read = call,agent,cdr,system\n" in text
    without = rendering.render(template, {**known, "labredes_events_enabled": "no"})
    assert "enabled = no" in without and "[events]" not in without


@pytest.mark.parametrize(
    ("release", "read", "line"),
    [
        ("22.10.1", None, "disabledevents = VarSet,Newexten,ChallengeSent,SuccessfulAuth,TestEvent"),
        ("22.10.1", ["call", "dialplan"], "disabledevents = ChallengeSent,SuccessfulAuth,TestEvent"),
        ("22.10.1", ["security"], "disabledevents = VarSet,Newexten,TestEvent"),
        ("22.10.1", ["dialplan", "security", "reporting"], "disabledevents = none"),
        ("22.10.1", ["all"], "disabledevents = none"),
        ("22.10.1", "default", "disabledevents = none"),
        ("18.2.0", None, ""),
    ],
)
def test_events_that_nobody_reads_are_disabled(release, read, line, tmp_path):
    user = {"name": "crm", "password": "kR7vTz0qWm2xBn5c", **({} if read == "default" else {"read": read})}
    own = {"asterisk_ami_users": [user] if read else [], "asterisk_deb_version": f"1:{release}+pbx.0123456789ab"}
    known = rendering.variables(rendering.FACTS["Debian 11"], own, tmp_path, "asterisk")
    text = rendering.render(rendering.ROLES / "asterisk/templates/etc/asterisk/manager.conf.j2", known)
    assert [row for row in text.splitlines() if row.startswith("disabledevents")] == ([line] if line else [])


def test_hash_is_the_same_in_every_run():
    one = scrypt_hash("kR7vTz0qWm2xBn5c", "seed of ana")
    assert scrypt_hash("kR7vTz0qWm2xBn5c", "seed of ana") == one
    assert passwords.verify("kR7vTz0qWm2xBn5c", one) and not passwords.verify("other", one)
    one, another, other_seed = (
        scrypt_hash(*given).split("$")[4] for given in (("one", "x"), ("another", "x"), ("one", "y"))
    )
    assert one == another != other_seed, "the salt follows from the seed, never from the password"


@pytest.mark.parametrize("system", ["Ubuntu 18.04", "Ubuntu 20.04"])
def test_old_ubuntu_has_its_libraries_unpacked(system, tmp_path):
    text = unit(system, tmp_path)
    unpacked = [line.split()[-2] for line in text.splitlines() if " -m zipfile -e " in line]
    assert len(unpacked) == 6 and not [name for name in unpacked if name.endswith("-any.whl")]
    (path,) = (line for line in text.splitlines() if line.startswith("Environment=PYTHONPATH="))
    assert "/usr/local/lib/labredes-events-libraries:" in path and path.count("-any.whl") == 7
    assert "ExecStart=/usr/bin/python3.8 -m apir_py serve" in text
    assert "zipfile" not in unit("Debian 12", tmp_path)


@pytest.mark.parametrize(("system", "count"), [("Debian 11", 1), ("Ubuntu 18.04", 13), ("Ubuntu 20.04", 13)])
def test_every_library_is_pinned_for_pip(system, count, tmp_path):
    known = rendering.variables(rendering.FACTS[system], {"asterisk_package_cache": str(tmp_path)}, tmp_path, "events")
    lines = rendering.evaluate("{{ __events_requirements }}", known).split("\n")
    pinned = [line for line in lines if re.fullmatch(r"[a-z0-9_]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line)]
    assert len(pinned) == count and not set(lines) - {*pinned, ""}, lines
    assert "panoramisk==1.4 --hash=sha256:936bb967eb60edf860b406124f30f086713ac21f55c5e4e322941ace24430dbb" in pinned


def test_passwords_of_removed_users_are_found(tmp_path):
    (tmp_path / rendering.HOST).mkdir()
    for name in ("events_operator", "events_gone", "ami_events"):
        (tmp_path / rendering.HOST / name).write_text("x\n")
    known = rendering.variables(rendering.FACTS["Debian 11"], {}, tmp_path, "events")
    assert rendering.evaluate("{{ __events_unused_secrets }}", known) == ["events_gone"]
    known["labredes_events_enabled"] = False
    assert rendering.evaluate("{{ __events_unused_secrets }}", known) == ["events_gone", "events_operator"]
