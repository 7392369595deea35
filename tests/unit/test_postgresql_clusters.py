"""Which cluster of PostgreSQL keeps the call records, and which is refused before anything changes."""

from __future__ import annotations

import json

import pytest
import rendering

MAIN = {
    "version": "13",
    "name": "main",
    "port": 5432,
    "status": "online",
    "owner": "postgres",
    "own": False,
    "shared": False,
    "included": True,
    "server": {"listens": "localhost", "databases": []},
}
OFFICE = {**MAIN, "name": "office", "server": {"listens": "localhost", "databases": ["invoices"]}}
SILENT = {"databases": ["16384"]}


@pytest.fixture(name="known")
def fixture_known(tmp_path):
    """A function from the clusters of a host and a description to the role's variables."""

    def known(*clusters: dict, taken: bool = True, **description: object) -> dict:
        found = rendering.variables(rendering.FACTS["Debian 11"], description, tmp_path, "postgresql")
        lines = [json.dumps(taken), *map(json.dumps, clusters)]
        return {**found, "__postgresql_listed": {"stdout_lines": lines}}

    return known


@pytest.mark.parametrize(
    ("clusters", "description", "expected"),
    [
        ([MAIN], {}, "13/main"),
        # The one at the port, whatever its name and version, and not the one that is called main.
        ([OFFICE, {**MAIN, "port": 5433}], {}, "13/office shared"),
        ([{**OFFICE, "version": "16"}], {}, "16/office shared"),
        ([{**OFFICE, "port": 5433}], {"labredes_database_port": 5433}, "13/office shared"),
        # pg_upgradecluster leaves the former one stopped, at another port.
        ([{**MAIN, "own": True, "port": 5433}, {**MAIN, "own": True, "version": "15"}], {}, "15/main"),
        ([{**MAIN, "status": "down"}, {**MAIN, "version": "15"}], {}, "15/main"),
        # The role's own one, or an empty one, moves to another port.
        ([{**MAIN, "own": True}], {"labredes_database_port": 5433}, "13/main"),
        ([MAIN], {"labredes_database_port": 5433}, "13/main"),
        ([{**MAIN, "status": "down", "server": {"databases": []}}], {"labredes_database_port": 5433}, "13/main"),
        # The database of the records alone is none of others'; nor is it once the settings are the role's.
        ([{**OFFICE, "server": {"listens": "localhost", "databases": ["asterisk"]}}], {}, "13/office"),
        ([{**OFFICE, "own": True}], {}, "13/office"),
        # A run that was killed has written its rules into the file of others, or all that it writes.
        ([{**OFFICE, "shared": True}], {}, "13/office shared"),
        ([{**OFFICE, "own": True, "shared": True}], {}, "13/office shared"),
        ([{**OFFICE, "status": "down", "server": SILENT}], {}, "13/office shared"),
        ([{**MAIN, "server": {**MAIN["server"], "encodings": {"asterisk": "UTF8", "old": "LATIN1"}}}], {}, "13/main"),
        # It is starting.
        ([{**MAIN, "own": True, "server": None}], {}, "13/main"),
    ],
)
def test_cluster_of_the_port_keeps_the_records(known, clusters, description, expected):
    port = description.get("labredes_database_port", 5432)
    taken = any(one["port"] == port and one["status"] == "online" for one in clusters)
    found = known(*clusters, taken=taken, **description)
    assert rendering.evaluate("{{ __postgresql_refusals }}", found) == []
    cluster = rendering.evaluate("{{ __postgresql_cluster }}", found)
    shared = " shared" if rendering.evaluate("{{ __postgresql_shared }}", found) else ""
    assert f"{cluster['version']}/{cluster['name']}{shared}" == expected
    directory = rendering.evaluate("{{ __postgresql_directory }} {{ __postgresql_service }}", found)
    assert directory == "/etc/postgresql/{0}/{1} postgresql@{0}-{1}".format(*expected.split()[0].split("/"))


@pytest.mark.parametrize(
    ("clusters", "description", "taken", "expected"),
    [
        ([], {}, True, "a program that is no cluster of PostgreSQL's packages listens on port 5432; choose another"),
        ([{**MAIN, "status": "down"}], {}, True, "a program that is no cluster of PostgreSQL's packages listens"),
        (
            [{**OFFICE, "port": 5433}],
            {},
            False,
            "other ports than labredes_database_port 5432 (13/office: 5433, online); set that to one of theirs, or run "
            "`pg_createcluster --port 5432 13 records`.",
        ),
        ([{**OFFICE, "own": True, "shared": True}], {"labredes_database_port": 5433}, False, "have other ports than"),
        ([MAIN, OFFICE], {}, True, "2 clusters for labredes_database_port 5432 (13/main: 5432, online; 13/office: 54"),
        ([{**OFFICE, "version": "9.6"}], {}, True, "PostgreSQL 9.6/office at labredes_database_port 5432 is too old"),
        (
            [{**OFFICE, "owner": "ana"}],
            {},
            True,
            "PostgreSQL 13/office belongs to the user ana; set labredes_database_",
        ),
        ([{**MAIN, "status": "online,recovery"}], {}, True, "PostgreSQL 13/main is a standby, which takes no records;"),
        ([{**OFFICE, "server": None}], {}, True, "13/office does not let the system's user postgres in; make `local"),
        (
            [{**OFFICE, "included": False}],
            {},
            True,
            "add the line include_dir = 'conf.d' to /etc/postgresql/13/office/",
        ),
        (
            [{**OFFICE, "server": {"listens": "localhost, 192.0.2.1", "databases": ["invoices"]}}],
            {},
            True,
            "has other databases (invoices) and listens on 192.0.2.1, and would not any more; add that to postgresql_",
        ),
        # A cluster that was made without a locale.
        (
            [{**MAIN, "server": {**MAIN["server"], "encodings": {"asterisk": "SQL_ASCII", "postgres": "UTF8"}}}],
            {},
            True,
            "has the database asterisk in the encoding SQL_ASCII; make it anew from a dump with `createdb --template",
        ),
    ],
)
def test_other_clusters_are_refused_by_name(known, clusters, description, taken, expected):
    (sentence,) = rendering.evaluate("{{ __postgresql_refusals }}", known(*clusters, taken=taken, **description))
    assert expected in sentence and sentence.endswith(".") and "\n" not in sentence, sentence


def test_others_keep_their_addresses_if_they_are_described(known):
    office = {**OFFICE, "server": {"listens": "*", "databases": ["invoices"]}}
    for addresses, refused in ((["*"], False), (["localhost"], True)):
        found = known(office, postgresql_listen_addresses=addresses)
        assert bool(rendering.evaluate("{{ __postgresql_refusals }}", found)) is refused
    # Afterwards the inventory decides.
    assert rendering.evaluate("{{ __postgresql_refusals }}", known({**office, "own": True, "shared": True})) == []


@pytest.mark.parametrize(("cluster", "shared"), [(MAIN, False), (OFFICE, True)])
def test_rules_of_others_stay_below_those_of_the_exchange(known, cluster, shared):
    templates = rendering.ROLES / "postgresql/templates/etc/postgresql"
    rules = rendering.render(templates / "pg_hba.conf.j2", known(cluster)).splitlines()
    assert ("host all asterisk all reject" in rules) is shared
    assert ("local all all peer" in rules) is not shared
    settings = rendering.render(templates / "conf.d/labredes.conf.j2", known(cluster))
    assert ("password_encryption" in settings) is not shared


@pytest.mark.parametrize(
    ("packages", "description", "refused"),
    [
        (["sudo"], {}, False),
        (["sudo-ldap"], {}, False),
        (["openssh-server"], {}, True),
        (["openssh-server"], {"ansible_become_method": "su"}, False),
    ],
)
def test_host_without_sudo_is_refused_unless_it_has_su(known, packages, description, refused):
    tasks = rendering.load(rendering.ROLES / "postgresql/tasks/inspect.yml")
    (task,) = (one for one in tasks if one["name"].startswith("Refuse a host on which"))
    found = {**known(MAIN), **description, "preflight_packages": packages}
    assert all(rendering.evaluate(f"{{{{ {line} }}}}", found) for line in task["when"]) is refused
