# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters cdr_journal and cel_journal: how the journal keeps the columns of call records and of channel events."""

from __future__ import annotations

import hashlib

TIMES = {"calldate": "start", "start": "start", "answer": "answer", "end": "end"}
# What Asterisk itself puts into a record; everything else is set by the dialplan.
TEXTS = {
    "accountcode",
    "billsec",
    "channel",
    "clid",
    "dcontext",
    "disposition",
    "dst",
    "dstchannel",
    "duration",
    "lastapp",
    "lastdata",
    "linkedid",
    "peeraccount",
    "sequence",
    "src",
    "uniqueid",
    "userfield",
}
# Channel events (CEL): the columns that cel_pgsql knows, with their type in PostgreSQL, and how cel_sqlite3_custom
# names them in releases of either kind. As text, since Asterisk cuts none of them.
EVENTS = {
    "eventtype": ("text", "eventtype", "eventtype"),
    "eventtime": ("timestamp", "eventtime", "eventtime(double)"),
    "userdeftype": ("text", "userdeftype", "userdeftype"),
    "cid_name": ("text", "CALLERID(name)", "name"),
    "cid_num": ("text", "CALLERID(num)", "num"),
    "cid_ani": ("text", "CALLERID(ANI)", "ani"),
    "cid_rdnis": ("text", "CALLERID(RDNIS)", "rdnis"),
    "cid_dnid": ("text", "CALLERID(DNID)", "dnid"),
    "exten": ("text", "CHANNEL(exten)", "exten"),
    "context": ("text", "CHANNEL(context)", "context"),
    "channame": ("text", "CHANNEL(channame)", "channame"),
    "appname": ("text", "CHANNEL(appname)", "appname"),
    "appdata": ("text", "CHANNEL(appdata)", "appdata"),
    "amaflags": ("int", "CHANNEL(amaflags)", "amaflags"),
    "accountcode": ("text", "CHANNEL(accountcode)", "accountcode"),
    "peeraccount": ("text", "CHANNEL(peeraccount)", "peeraccount"),
    "uniqueid": ("text", "CHANNEL(uniqueid)", "uniqueid"),
    "linkedid": ("text", "CHANNEL(linkedid)", "linkedid"),
    "userfield": ("text", "CHANNEL(userfield)", "userfield"),
    "peer": ("text", "BRIDGEPEER", "peer"),
    "extra": ("text", "eventextra", "eventextra"),
}


def cel_journal(name):
    """The same as cdr_journal() for channel events, and the ``types`` of the columns in PostgreSQL."""
    return {
        "table": _table(name, EVENTS),
        "columns": list(EVENTS),
        "types": {column: kind for column, (kind, _value, _field) in EVENTS.items()},
        "values": [f"'${{{value}}}'" for _kind, value, _field in EVENTS.values()],
        "fields": [field for _kind, _value, field in EVENTS.values()],
    }


def _table(name, columns):
    return "{}_{}".format(name, hashlib.sha256(",".join(columns).encode()).hexdigest()[:8])


def cdr_journal(columns):
    """The journal's ``table`` and ``columns``, and what cdr_sqlite3_custom writes into them.

    That is ``values`` before releases 20.19 and 22.9, and ``fields`` from there on. Times are seconds since 1970, which
    are the same in every time zone. Another set of columns has another table, so that Asterisk goes on writing to the
    one that it knows until it reads its file again.
    """
    names = [name for name, kind in columns.items() if "serial" not in str(kind)]
    return {
        "table": _table("cdr", names),
        "columns": names,
        "values": [_value(name) for name in names],
        "fields": [_field(name) for name in names],
    }


def _value(name):
    unparsed = ",u" if name in TIMES or name == "amaflags" else ""
    return f"'${{CDR({TIMES.get(name, name)}{unparsed})}}'"


def _field(name):
    if name in TIMES:
        return f"{TIMES[name]}(double)"
    if name == "amaflags":
        return "amaflags(int64)"
    return name if name in TEXTS else f"{name}(uservar)"


class FilterModule:
    """Registers the filters."""

    def filters(self):
        """The filters by name."""
        return {"cdr_journal": cdr_journal, "cel_journal": cel_journal}
