"""Upgrades of Asterisk and the way back, under calls and with builds that fail. `make test-upgrade`."""

from __future__ import annotations

import re
import signal
import time

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone
from builds import rebuilt
from conftest import connect, drive

FAILED = "/var/lib/labredes/upgrade/failed"


def said(done) -> str:
    """The output of a run as one line."""
    return " ".join(done.stdout.split())


def upgraded(exchange, build: str = "second", *words: str, **more: object):
    """An upgrade that has to pass."""
    done = exchange.play("upgrade_asterisk", *words, build=build, **more)
    assert done.returncode == 0, done.stdout[-3000:]
    return done


def records(exchange) -> list[str]:
    """The calls from 6001 to 6002 in PostgreSQL."""
    query = "SELECT uniqueid, billsec FROM cdr WHERE (src, dst) = ('6001', '6002') ORDER BY id"
    return exchange.run(f'cd / && sudo -u postgres psql -At asterisk -c "{query}"').split()


def test_checks_alone_change_nothing_that_runs(exchange):
    before, state = exchange.process(), exchange.state()
    done = exchange.play("upgrade_asterisk", "--tags=checks", build="second")
    first, second = (exchange.builds[name][1] for name in ("first", "second"))
    assert done.returncode == 0 and f"Asterisk {first} can be upgraded to {second}." in said(done), done.stdout[-3000:]
    assert (exchange.process(), exchange.state()) == (before, state)
    done = exchange.play("upgrade_asterisk")
    assert done.returncode == 0 and f"Asterisk {first} is what is described." in said(done), done.stdout[-3000:]
    assert exchange.process() == before


def test_checks_say_what_is_missing(exchange):
    exchange.run("systemctl stop postgresql")
    try:
        done = exchange.play("upgrade_asterisk", "--tags=checks", build="second")
    finally:
        exchange.run("systemctl start postgresql")
    assert done.returncode and "the database of the call records does not answer" in said(done), done.stdout[-3000:]
    done = exchange.play("upgrade_asterisk", "--tags=checks", build="second", __asterisk_upgrade_megabytes=10**7)
    assert done.returncode and "MB free, and an upgrade needs 10000000 MB" in said(done), done.stdout[-3000:]


@pytest.mark.parametrize("name", ["upgrade_asterisk", "site"])
def test_wrong_packages_are_refused_by_name(exchange, tmp_path, name):
    original, version = exchange.builds["first"]
    other = re.sub(r"[0-9a-f]+$", "9" * 12, version)
    words = [] if name == "upgrade_asterisk" else ["--tags=asterisk"]
    foreign, short = tmp_path / "foreign.deb", tmp_path / "short.deb"
    rebuilt(original, foreign, other, "rm -r usr/lib usr/share", Architecture="s390x")
    short.write_bytes(original.read_bytes()[:20_000_000])
    before, state = exchange.process(), exchange.state()
    for path, sentence in (
        (foreign, "foreign.deb is made for the architecture s390x, and the host has"),
        (short, "short.deb is damaged; delete it"),
    ):
        exchange.builds["wrong"] = (path, other)
        done = exchange.play(name, *words, build="wrong")
        assert done.returncode and sentence in said(done), done.stdout[-3000:]
    (tmp_path / "short.deb.sha256").write_text("0" * 64 + "  short.deb\n")
    done = exchange.play(name, *words, build="wrong")
    assert done.returncode and "has not the checksum in the file .sha256 beside it" in said(done), done.stdout[-3000:]
    assert (exchange.process(), exchange.state()) == (before, state)


def test_damaged_way_back_is_replaced_or_refused(exchange):
    original, version = exchange.builds["first"]
    beside = exchange.builds["second"][0].with_name(original.name)  # where the controller's packages are
    kept = f"/var/lib/labredes/packages/*{version.rpartition('.')[2]}.deb"
    exchange.run(f"truncate --size=20M {kept}")
    before = exchange.process()
    done = exchange.play("upgrade_asterisk", "--tags=checks", build="second")
    assert done.returncode and "so there would be no way back; copy it there" in said(done), done.stdout[-3000:]
    beside.symlink_to(original)
    try:
        done = exchange.play("upgrade_asterisk", "--tags=checks", build="second")
    finally:
        beside.unlink()
    assert done.returncode == 0, done.stdout[-3000:]
    assert exchange.run(f"dpkg-deb --fsys-tarfile {kept} > /dev/null && echo whole") == "whole\n"
    assert exchange.process() == before


def test_older_release_is_refused_by_name(exchange, tmp_path):
    exchange.builds["older"] = (exchange.builds["second"][0], "1:20.20.1+pbx.999999999999")
    done = exchange.play("upgrade_asterisk", build="older")
    assert done.returncode and "Asterisk 20.20.1 is older than 22.10.1, which is installed; go back" in said(done)


def test_upgrade_waits_for_the_call_and_loses_none(exchange, phones):
    """The call in progress ends by itself; one in the middle of the change is answered by the new version."""
    caller, callee = phones
    before = records(exchange)
    connect(phones)
    run = exchange.start("upgrade_asterisk", build="second")
    drive(phones, lambda: "TASK [labredes.pbx.asterisk : Stop Asterisk when" in exchange.output())
    time.sleep(3)
    with_new = Phone(
        "6003", ("6003", exchange.info["phones"]["6003"]["password"]), Connection("udp", callee.connection.server, 5)
    )
    refused = with_new.dial("6002")
    drive([*phones, with_new], lambda: refused.final, 20)
    assert refused.final.status >= 400, "a new call is refused while the exchange waits"
    assert not caller.call.ended and not callee.call.ended
    asked = caller.hang_up()
    drive(phones, lambda: asked.final and callee.call.ended, 20)
    drive(phones, lambda: "calls that come in now are held" in exchange.output())
    begun = time.monotonic()
    callee.call = caller.call = callee.incoming = None
    connect(phones, 60)
    waited = time.monotonic() - begun
    print(f"a call in the middle of the upgrade was answered after {waited:.1f} s")
    drive(phones, lambda: run.poll() is not None)
    assert run.returncode == 0, exchange.output()[-3000:]
    assert waited < 32
    caller.hang_up()
    drive(phones, lambda: callee.call.ended, 10)
    assert exchange.version() == f"installed {exchange.builds['second'][1]}"
    assert exchange.run("ls /usr/lib/asterisk/modules | grep -c ooh323 || true") == "0\n"
    drive([], lambda: len(records(exchange)) == len(before) + 2, 10)
    assert exchange.run("nft list tables | grep labredes_hold || true") == ""


def test_call_that_goes_on_stops_the_upgrade(exchange, phones):
    caller, callee = phones
    connect(phones)
    before, state = exchange.process(), exchange.state()
    run = exchange.start("upgrade_asterisk", build="second", asterisk_drain_seconds=2)
    drive(phones, lambda: run.poll() is not None)
    assert run.returncode and re.search(r"1 call is in progress \(6001 with 6002 for \d+ s\)", exchange.output())
    assert (exchange.process(), exchange.state()) == (before, state)
    assert not caller.call.ended and not callee.call.ended
    asked = caller.hang_up()
    drive(phones, lambda: asked.final and callee.call.ended, 10)
    callee.call = caller.call = callee.incoming = None
    connect(phones)  # new calls are taken again
    caller.hang_up()
    drive(phones, lambda: callee.call.ended, 10)


def test_site_ends_no_call_unless_that_is_allowed(exchange, phones):
    caller, callee = phones
    connect(phones)
    before = exchange.process()
    for more, words in (({"asterisk_country": "us", "asterisk_max_files": 16000}, "asterisk.service"), ({}, "")):
        build = "first" if words else "second"
        run = exchange.start("site", "--tags=asterisk,pbx", build=build, **more)
        drive(phones, lambda run=run: run.poll() is not None)
        found = exchange.output()
        assert run.returncode and words in found and "(6001 with 6002 for" in found, found[-3000:]
        assert exchange.process() == before and not caller.call.ended
    assert exchange.version() == f"installed {exchange.builds['first'][1]}"
    run = exchange.start("site", "--tags=asterisk,pbx", labredes_end_calls=True)
    drive(phones, lambda: run.poll() is not None)
    assert run.returncode == 0 and exchange.process() != before, exchange.output()[-3000:]


def test_rollback_takes_thirty_seconds_and_loses_no_new_call(exchange, phones):
    caller, callee = phones
    state = exchange.state()
    upgraded(exchange)
    exchange.run("asterisk -rx 'database put 6001 REDIRECT 6003'; asterisk -rx 'database del 6001 REDIRECT'")
    exchange.run("asterisk -rx 'database put 6004 REDIRECT 6003'")
    begun = time.monotonic()
    run = exchange.start("rollback_asterisk")
    drive(phones, lambda: "calls that come in now are held" in exchange.output())
    stopped = time.monotonic()
    connect(phones, 60)
    waited = time.monotonic() - stopped
    drive(phones, lambda: run.poll() is not None)
    took = time.monotonic() - begun
    print(f"the rollback took {took:.1f} s, and a call in its middle was answered after {waited:.1f} s")
    assert run.returncode == 0, exchange.output()[-3000:]
    assert took <= 30 and waited < 32
    assert "6004/REDIRECT" in exchange.run("asterisk -rx 'database show'"), "what users have set since stays"
    exchange.run("asterisk -rx 'database del 6004 REDIRECT'")
    caller.hang_up()
    drive(phones, lambda: callee.call.ended, 10)
    assert exchange.state() == state
    done = exchange.play("rollback_asterisk")
    assert done.returncode and "there is no earlier version to go back to" in said(done)


def test_rollback_does_not_lose_a_newer_configuration(exchange):
    upgraded(exchange)
    done = exchange.play("site", "--tags=pbx", build="second", pbx_user_agent="Newer")
    assert done.returncode == 0, done.stdout[-3000:]
    before = exchange.process()
    done = exchange.play("rollback_asterisk")
    assert done.returncode and "the configuration has changed since the upgrade (/etc/asterisk/pjsip" in said(done)
    assert exchange.process() == before


@pytest.mark.parametrize("build", ["ending", "silent"])
def test_build_that_fails_is_replaced_by_the_former(exchange, phones, build):
    state = exchange.state()
    run = exchange.start("upgrade_asterisk", build=build)
    drive(phones, lambda: "Install the package" in exchange.output())
    exchange.run("echo core > /var/lib/asterisk/core.4711")
    drive(phones, lambda: run.poll() is not None, 240)
    first, failed = exchange.builds["first"][1], exchange.builds[build][1]
    found = exchange.output()
    assert run.returncode and f"the upgrade to Asterisk {failed} has failed (" in found, found[-3000:]
    assert f"and the exchange runs {first} again; package, logs" in found, found[-3000:]
    assert exchange.state() == state
    kept = exchange.run(f"cd {FAILED}; ls; cat version; echo; grep -c . journal.log messages.log").split()
    assert {"core.4711", "journal.log", "messages.log", failed} <= set(kept) and any(n.endswith(".deb") for n in kept)
    connect(phones)
    phones[0].hang_up()
    drive(phones, lambda: phones[1].call.ended, 10)
    assert exchange.run("ls /var/lib/labredes/packages | wc -l").strip() == "1"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("/var/lib/labredes/upgrade", "The snapshot in /var/lib/labredes/upgrade has failed: [Errno 28] No space left"),
        ("/usr/lib/asterisk", "(No space left on device)); free some disk space on the host or"),
    ],
)
def test_full_disk_leads_back_and_the_next_run_completes(exchange, place, sentence):
    """The disk fills after the checks: while the snapshot is taken, and while dpkg unpacks."""
    state = exchange.state()
    exchange.run(
        f"mkdir -p {place}; cp -a {place} /var/tmp/kept; size=$(du -sm {place} | cut -f 1)\n"
        f"mount -t tmpfs -o size=$((size + 8))m,mode=0755 none {place}\n"
        f"cp -a /var/tmp/kept/. {place}; rm -r /var/tmp/kept"
    )
    try:
        done = exchange.play("upgrade_asterisk", build="second")
        assert done.returncode and sentence in said(done), done.stdout[-3000:]
        assert f"and the exchange runs {exchange.builds['first'][1]} again" in said(done), done.stdout[-3000:]
        assert exchange.ready() and exchange.state() == state
    finally:
        exchange.run(f"umount --lazy {place}")
    upgraded(exchange)
    assert exchange.version() == f"installed {exchange.builds['second'][1]}" and exchange.ready()


STEPS = [
    ("Copy the package to the host#1:after", "upgrade_asterisk"),
    ("Stop Asterisk when the calls have ended, and hold new ones#1:after", "upgrade_asterisk"),
    ("Keep what the upgrade replaces#2:before", "rollback_asterisk"),
    ("Keep what the upgrade replaces#2:after", "rollback_asterisk"),
    ("Install the package#1:before", "site"),
    ("Install the package#1:after", "rollback_asterisk"),
    ("Write the configuration files#1:after", "upgrade_asterisk"),
    ("Write the configuration files of the exchange#1:after", "site"),
    ("Start Asterisk, or have it read the files of this role#1:after", "rollback_asterisk"),
    ("Compare the running exchange with the description, and place calls#1:before", "upgrade_asterisk"),
]


@pytest.mark.parametrize(("step", "then"), STEPS)
def test_killed_upgrade_is_completed_by_the_next_run(exchange, step, then):
    state = exchange.state()
    done = exchange.play("upgrade_asterisk", build="second", killed_at=step)
    assert done.returncode == -signal.SIGKILL, f"not killed: {done.stdout[-3000:]}"
    time.sleep(2)  # until the lock of the killed run ends
    words = ["--tags=asterisk,pbx,verify"] if then == "site" else []
    done = exchange.play(then, *words, build="second")
    nothing = "there is no earlier version to go back to"
    if then == "rollback_asterisk" and nothing in said(done):  # it was killed before there was anything to go back to
        done = exchange.play("site", "--tags=asterisk,pbx,verify")
    assert done.returncode == 0, done.stdout[-3000:]
    back = then == "rollback_asterisk"
    assert exchange.version() == f"installed {exchange.builds['first' if back else 'second'][1]}"
    assert exchange.ready() and (not back or exchange.state() == state)
    assert exchange.run("ls /var/lib/labredes/upgrade | grep -c begun || true") == "0\n"


@pytest.mark.parametrize("step", ["Install the earlier package#1:before", "Bring the earlier files back#1:after"])
def test_killed_way_back_is_completed_by_the_next_run(exchange, step):
    state = exchange.state()
    done = exchange.play("upgrade_asterisk", build="ending", killed_at=step)
    assert done.returncode == -signal.SIGKILL, f"not killed: {done.stdout[-3000:]}"
    time.sleep(2)
    done = exchange.play("rollback_asterisk")
    assert done.returncode == 0, done.stdout[-3000:]
    assert exchange.state() == state


def test_package_that_is_half_installed_is_not_started(exchange):
    """As a power failure leaves it; the next run of either playbook installs it to its end."""
    package, version = exchange.builds["second"]
    for name in ("upgrade_asterisk", "site"):
        exchange.run("systemctl stop asterisk")
        exchange.run(
            "python3 - <<'END'\nimport re\npath = '/var/lib/dpkg/status'\ntext = open(path).read()\n"
            "old = 'Package: labredes-asterisk\\nStatus: install ok installed'\n"
            "assert old in text\n"
            "open(path, 'w').write(text.replace(old, old.replace('ok installed', 'reinstreq half-installed')))\nEND"
        )
        exchange.run("rm /usr/lib/asterisk/modules/chan_pjsip.so")
        started = exchange.run("timeout 10 systemctl start asterisk 2>&1 || echo refused")
        assert "refused" in started and not exchange.ready()
        done = exchange.play(name, build="second")
        assert done.returncode == 0, done.stdout[-3000:]
        assert exchange.version() == f"installed {version}" and exchange.ready()
    assert package.exists()


def test_second_run_at_the_same_time_is_refused(exchange):
    run = exchange.start("upgrade_asterisk", build="second")
    drive([], lambda: "TASK [labredes.pbx.asterisk : " in exchange.output())
    done = exchange.play("upgrade_asterisk", build="silent")
    assert done.returncode and "is at work on it" in said(done), done.stdout[-3000:]
    drive([], lambda: run.poll() is not None)
    assert run.returncode == 0, exchange.output()[-3000:]
    assert exchange.version() == f"installed {exchange.builds['second'][1]}"


def test_upgrade_of_postgresql_under_a_call_loses_no_record(exchange, phones):
    caller, callee = phones
    before = records(exchange)
    connect(phones)
    restarted = "systemctl show 'postgresql@*-main.service' --property=ExecMainStartTimestampMonotonic --value"
    old = exchange.run(restarted)
    exchange.run(
        "apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --reinstall"
        " $(dpkg-query -Wf '${db:Status-Status} ${Package}\\n' 'postgresql-[0-9]*' | sed -n 's/^installed //p') 2>&1",
        seconds=200,
    )
    assert exchange.run(restarted) != old, "PostgreSQL was not restarted"
    assert not caller.call.ended
    caller.hang_up()
    drive(phones, lambda: callee.call.ended, 10)
    drive([], lambda: len(records(exchange)) == len(before) + 1, 20)


def test_hardening_and_a_whole_run_upgrade_no_package(exchange):
    """An older version of a package of the distribution stays, and PostgreSQL and Asterisk run on."""
    processes = "systemctl show asterisk 'postgresql@*-main.service' --property=MainPID --value"
    before = exchange.run(processes)
    for words in (["--tags=harden"], []):
        done = exchange.play("site", *words)
        assert done.returncode == 0 and exchange.run(processes) == before, done.stdout[-3000:]
        if not words:
            assert re.search(r"Update the package lists and upgrade\].*\nskipping", done.stdout), done.stdout[:6000]
    for name, words in (("site", ["--tags=upgrade"]), ("upgrade", [])):
        done = exchange.play(name, *words)
        assert done.returncode == 0, done.stdout[-3000:]
        assert re.search(r"Update the package lists and upgrade\].*\n(ok|changed)", done.stdout), done.stdout[:6000]
