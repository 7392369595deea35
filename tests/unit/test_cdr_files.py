"""The files of the call records' journal: for early and late releases of Asterisk, and for the service."""

from __future__ import annotations

import re

import asterisk_files
import pytest
import records
import rendering
from unit_exposure import check_exposure

ASTERISK = rendering.ROLES / "asterisk/templates/etc"
CDR = rendering.ROLES / "cdr/templates/etc"
DEBIAN = rendering.FACTS["Debian 12"]


def known(role: str, secrets, **description) -> dict:
    """The variables of a role on an exchange."""
    return rendering.variables(DEBIAN, description, secrets, role)


def journal_of(release: str, secrets, **description) -> asterisk_files.Section:
    """The section [master] of cdr_sqlite3_custom.conf for a release."""
    more = known("asterisk", secrets, asterisk_deb_version=f"1:{release}+pbx.0123456789ab", **description)
    text = rendering.render(ASTERISK / "asterisk/cdr_sqlite3_custom.conf.j2", more)
    (section,) = asterisk_files.parse(text)
    assert section.name == "master", "early releases know no other"
    return section


def loaded(release: str, secrets, **description) -> list[str]:
    """The modules that a release loads for call records, in their order."""
    more = known("asterisk", secrets, asterisk_deb_version=f"1:{release}+pbx.0123456789ab", **description)
    text = rendering.render(ASTERISK / "asterisk/modules.conf.j2", more)
    return re.findall(r"load => ((?:cdr|res_cdrel)\w+)\.so", text)


def test_early_release_takes_values(tmp_path):
    section = journal_of("18.2.0", tmp_path)
    assert section.get("fields") is None
    assert section.get("values") == (
        "'${CDR(start,u)}','${CDR(clid)}','${CDR(src)}','${CDR(dst)}','${CDR(dcontext)}','${CDR(channel)}',"
        "'${CDR(dstchannel)}','${CDR(lastapp)}','${CDR(lastdata)}','${CDR(duration)}','${CDR(billsec)}',"
        "'${CDR(disposition)}','${CDR(amaflags,u)}','${CDR(accountcode)}','${CDR(uniqueid)}','${CDR(userfield)}',"
        "'${CDR(peeraccount)}','${CDR(linkedid)}','${CDR(sequence)}','${CDR(connected)}','${CDR(released)}'"
    )


def test_late_release_takes_fields(tmp_path):
    section = journal_of("22.10.1", tmp_path)
    assert section.get("values") is None
    assert section.get("fields") == (
        "start(double),clid,src,dst,dcontext,channel,dstchannel,lastapp,lastdata,duration,billsec,disposition,"
        "amaflags(int64),accountcode,uniqueid,userfield,peeraccount,linkedid,sequence,connected(uservar),released(uservar)"
    )


@pytest.mark.parametrize(
    ("release", "late"),
    [
        ("18.2.0", False),
        ("18.26.4", False),
        ("20.18.2", False),
        ("20.19.0", True),
        ("20.20.1", True),
        ("21.12.0", False),
        ("22.8.2", False),
        ("22.9.0", True),
        ("23.2.1", False),
        ("23.3.0", True),
        ("24.0.0", True),
    ],
)
def test_module_is_loaded_where_the_release_has_it(release, late, tmp_path):
    section = journal_of(release, tmp_path)
    assert (section.get("fields") is not None) == late
    # The last one to register is the first to get a record, before a database that may not answer.
    assert loaded(release, tmp_path) == ["cdr_pgsql", "cdr_sqlite3_custom"] + ["res_cdrel_custom"] * late


@pytest.mark.parametrize("release", ["18.2.0", "22.10.1"])
def test_columns_are_those_of_the_journal(release, tmp_path):
    columns = {**records.COLUMNS, "answer": "timestamp", "costcentre": "varchar(40)", "group": "int"}
    section = journal_of(release, tmp_path, labredes_cdr_columns=columns)
    wanted = records.cdr_journal(columns)
    # In quotes, since the name may be a keyword of SQL.
    assert section.get("columns") == ",".join(f'"{name}"' for name in wanted["columns"])
    written = section.get("fields") or section.get("values")
    assert len(re.split(r",(?![^(]*\))", written)) == len(wanted["columns"])
    assert section.get("table") == wanted["table"] != records.JOURNAL["table"]
    assert written.endswith(
        {
            "18.2.0": "'${CDR(answer,u)}','${CDR(costcentre)}','${CDR(group)}'",
            "22.10.1": "answer(double),costcentre(uservar),group(uservar)",
        }[release]
    )
    text = rendering.render(CDR / "labredes-cdr/cdr.conf.j2", known("cdr", tmp_path, labredes_cdr_columns=columns))
    assert f"\ntable = {wanted['table']}\ncolumns = {' '.join(wanted['columns'])}\n" in text


@pytest.mark.parametrize(
    ("host", "direct"), [("localhost", True), ("127.0.0.1", True), ("192.0.2.7", False), ("db.example.org", False)]
)
def test_asterisk_writes_to_a_local_database_alone(host, direct, tmp_path):
    assert ("cdr_pgsql" in loaded("22.10.1", tmp_path, labredes_database_host=host)) == direct
    more = known("asterisk", tmp_path, labredes_database_host=host)
    files = [file["name"] for file in rendering.evaluate("{{ __asterisk_files }}", more)]
    assert ("cdr_pgsql.conf" in files) == direct and "cdr_sqlite3_custom.conf" in files
    # Not to the server itself, for which libpq would wait without an end.
    text = rendering.render(ASTERISK / "asterisk/cdr_pgsql.conf.j2", more)
    assert "\nhostname = /run/labredes-cdr\n" in text
    # A column more has to change the file, so that the module reads the columns again.
    columns = {**records.COLUMNS, "costcentre": "varchar(40)"}
    more = known("asterisk", tmp_path, labredes_database_host=host, labredes_cdr_columns=columns)
    assert rendering.render(ASTERISK / "asterisk/cdr_pgsql.conf.j2", more) != text


def test_asterisk_may_write_to_the_journal(tmp_path):
    more = known("asterisk", tmp_path, labredes_cdr_directory="/srv/cdr")
    unit = rendering.render(ASTERISK / "systemd/system/asterisk.service.j2", more)
    assert "\nReadWritePaths=-/var/spool/asterisk -/srv/cdr\n" in unit
    assert "\nSupplementaryGroups=labredes-cdr\n" in unit
    assert "ln -sfn --backup=numbered /srv/cdr/journal.db /var/log/asterisk/master.db" in unit
    assert '"PGOPTIONS=-c statement_timeout=3000"' in unit


def test_password_is_escaped_for_libpq(tmp_path):
    more = known("cdr", tmp_path, labredes_database_password="a:b\\c", labredes_database_user="x9")
    text = rendering.render(CDR / "labredes-cdr/pgpass.j2", more)
    assert text.splitlines()[-1] == "*:*:*:x9:a\\:b\\\\c"


def test_exposure_of_the_service_is_at_most_two(tmp_path):
    text = rendering.render(CDR / "systemd/system/labredes-cdr.service.j2", known("cdr", tmp_path))
    check_exposure(text, "labredes-cdr.service", tmp_path)
