#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.records_dump: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: records_dump
short_description: Count the records of a dump of PostgreSQL, or add those that a database lacks
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Reads one table of a dump in the format of C(pg_dump --format=custom). A record that the database has, by its key,
    stays as it is; C(pg_restore) by itself would fail or double it.
  - All or nothing is added, in one transaction. Runs as a user who may connect over the local socket.
options:
  path: {description: The dump on this host., type: path, required: true}
  table: {description: The table., type: str, required: true}
  kind:
    description: >-
      What the table has: call records, whose key is C(uniqueid) and C(sequence), or channel events, whose key is
      C(uniqueid), C(eventtime) and C(eventtype). Of the latter the dump or the database may have no table.
    type: str
    choices: [cdr, cel]
    default: cdr
  database: {description: Database to add the records to; without it they are counted., type: str, default: ""}
  port: {description: Port of the server., type: int, default: 5432}
attributes:
  check_mode: {support: full, description: Rolls the transaction back.}
"""

EXAMPLES = r"""
- name: Add the records
  labredes.pbx.records_dump: {path: /var/tmp/restore/records.pgc, table: cdr, database: asterisk}
"""

RETURN = r"""
records: {description: The number of records in the dump., returned: success, type: int}
latest: {description: The latest time of a record in it., returned: success, type: str}
added: {description: The number of records that are new in the database., returned: success, type: int}
others: {description: "Records whose key another one of the database has, left out.", returned: success, type: int}
missing: {description: Whether the database has no table for them., returned: success, type: bool}
"""

import io
import os
from contextlib import closing

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.records_dump import DumpError, MissingTableError, Records

try:
    import psycopg2
    from psycopg2 import Error as PostgresError
    from psycopg2 import extensions
except ImportError:
    psycopg2, PostgresError = None, OSError

# By kind: the column with the time, the key, and what tells two records of the same key apart, which is what the
# service that forwards them compares, and the numbers.
DATE = {"cdr": "calldate", "cel": "eventtime"}
KEY = {"cdr": ("uniqueid", "sequence"), "cel": ("uniqueid", "eventtime", "eventtype")}
COMPARED = {
    "cdr": ("calldate", "channel", "src", "dst", "duration", "billsec", "disposition"),
    "cel": ("channame", "appname", "appdata", "peer", "extra"),
}


def merge(module, records, table, kind):
    """Add the records that are missing; returns the numbers of those that were added, and of others."""
    key, last = ", ".join(KEY[kind]), KEY[kind][-1]
    connection = psycopg2.connect(dbname=module.params["database"], port=module.params["port"])
    connection.set_client_encoding("UTF8")
    with closing(connection), connection.cursor() as cursor:
        name = extensions.quote_ident(table, connection)
        # The rows have been through the table's trigger already.
        cursor.execute("SELECT to_regclass(%s) IS NULL", (name,))
        if kind == "cel" and cursor.fetchone()[0]:
            raise MissingTableError(f"the database has no table {table}")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(f"CREATE TEMPORARY TABLE restored (LIKE {name} INCLUDING DEFAULTS) ON COMMIT DROP")
        cursor.execute(f"SELECT * FROM {name} LIMIT 0")
        known = [column[0] for column in cursor.description]
        lacking = [column for column in records.columns if column not in known]
        if lacking:
            raise DumpError(
                f"the table {table} lacks the column {lacking[0]} of the archive; add it to labredes_cdr_columns and "
                "run site.yml first"
            )

        def listed(columns, prefix=""):
            return ", ".join(prefix + extensions.quote_ident(column, connection) for column in columns)

        # Numbers of rows are the database's own.
        columns = [column for column in records.columns if column != "id"]
        compared = [column for column in COMPARED[kind] if column in columns]
        try:
            cursor.copy_expert(f"COPY restored ({listed(records.columns)}) FROM STDIN", io.BufferedReader(records))
        except psycopg2.Error:
            if records.error:
                raise records.error from None
            raise
        cursor.execute(f"CREATE INDEX ON restored ({key})")
        cursor.execute(
            f"SELECT count(*) FROM restored r JOIN {name} t USING ({key})"
            f" WHERE ({listed(compared, 'r.')}) IS DISTINCT FROM ({listed(compared, 't.')})"
        )
        others = cursor.fetchone()[0]
        # A row without all of its key has none that PostgreSQL would compare.
        order = "r.id" if "id" in records.columns else f"r.{DATE[kind]}"
        cursor.execute(
            f"INSERT INTO {name} ({listed(columns)}) SELECT {listed(columns, 'r.')} FROM restored r"
            f" WHERE r.{last} IS NOT NULL OR NOT EXISTS (SELECT FROM {name} t WHERE t.uniqueid = r.uniqueid"
            f" AND t.{last} IS NULL AND ({listed(compared, 't.')}) IS NOT DISTINCT FROM ({listed(compared, 'r.')}))"
            f" ORDER BY {order} ON CONFLICT ({key}) DO NOTHING"
        )
        added = cursor.rowcount
        if module.check_mode:
            connection.rollback()
        else:
            connection.commit()
    return added, others


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "table": {"type": "str", "required": True},
            "kind": {"type": "str", "choices": ["cdr", "cel"], "default": "cdr"},
            "database": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 5432},
        },
        supports_check_mode=True,
    )
    added, others, missing, table, kind = 0, 0, False, module.params["table"], module.params["kind"]
    os.chdir("/")
    if module.params["database"] and psycopg2 is None:
        module.fail_json(msg="python3-psycopg2 is not installed; run site.yml --tags database first.")
    try:
        records = Records(module.params["path"], table, DATE[kind])
        try:
            if module.params["database"]:
                added, others = merge(module, records, table, kind)
        except MissingTableError:
            missing = True
        if missing or not module.params["database"]:
            while records.next_row():
                pass
    except MissingTableError as problem:
        if kind == "cdr":
            module.fail_json(msg=f"The call records: {problem}.")
        module.exit_json(changed=False, records=0, latest="", added=0, others=0, missing=False)
    except DumpError as problem:
        module.fail_json(msg=f"The call records: {problem}.")
    except (OSError, PostgresError) as problem:
        reason = " ".join(str(problem).split()).rstrip(".")
        module.fail_json(msg=f"The call records cannot be read or added: {reason}.")
    what = "call records" if kind == "cdr" else "channel events"
    diff = {"prepared": f"{added} {what}\n"} if added else {}
    module.exit_json(
        changed=bool(added),
        records=records.count,
        latest=records.latest,
        added=added,
        others=others,
        missing=missing,
        diff=diff,
    )


if __name__ == "__main__":
    main()
