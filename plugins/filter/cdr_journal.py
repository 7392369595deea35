# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter cdr_journal: how the journal of call records keeps the columns of their table."""

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


def cdr_journal(columns):
    """The journal's ``table`` and ``columns``, and what cdr_sqlite3_custom writes into them.

    That is ``values`` before releases 20.19 and 22.9, and ``fields`` from there on. Times are seconds since 1970, which
    are the same in every time zone. Another set of columns has another table, so that Asterisk goes on writing to the
    one that it knows until it reads its file again.
    """
    names = [name for name, kind in columns.items() if "serial" not in str(kind)]
    digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:8]
    return {
        "table": f"cdr_{digest}",
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
    """Registers the filter."""

    def filters(self):
        """The filters by name."""
        return {"cdr_journal": cdr_journal}
