"""Connections to PostgreSQL: encrypted to another host, by ODBC and by libpq."""

from __future__ import annotations

import configparser

import pytest
import rendering

TEMPLATES = rendering.ROLES / "asterisk/templates/etc"


@pytest.mark.parametrize(
    ("description", "mode"),
    [
        ({}, "allow"),
        ({"labredes_database_host": "127.0.0.1"}, "allow"),
        ({"labredes_database_host": "192.0.2.7"}, "require"),
        ({"labredes_database_server": "db1", "hostvars": {"db1": {"ansible_host": "192.0.2.7"}}}, "require"),
        ({"labredes_database_host": "192.0.2.7", "labredes_database_sslmode": "verify-full"}, "verify-full"),
    ],
)
def test_other_database_host_is_reached_over_tls(description, mode, tmp_path):
    known = {**rendering.variables(rendering.FACTS["Debian 12"], {}, tmp_path, "asterisk"), **description}
    odbc = configparser.ConfigParser(interpolation=None)
    odbc.read_string(rendering.render(TEMPLATES / "odbc.ini.j2", known))
    assert odbc["asterisk"]["SSLmode"] == mode
    unit = rendering.render(TEMPLATES / "systemd/system/asterisk.service.j2", known)
    assert f"\nEnvironment=PGSSLMODE={mode}\n" in unit
