"""What an exchange has and a restore has to give back, for comparison."""

from __future__ import annotations

import json
from collections.abc import Callable

# Everything but what changes by itself: the journal of calls, and the mailboxes' lock files.
LOOK = r"""
cd /var/spool/asterisk
files() { find "$@" -type f ! -name '.*' 2>/dev/null | sort; }
files voicemail/from-internal monitor recording | while read -r file; do
    stat --printf='%U %G %a ' "$file" "${file%/*}"; sha256sum "$file"; done
echo --
asterisk -rx 'database show' | grep -E '^/(REDIRECT|Queue)/' | sort
echo --
cd / && sudo -u postgres psql -At asterisk -c "SELECT count(*), count(DISTINCT (uniqueid, sequence)),
    md5(string_agg(md5((to_jsonb(c) - 'id')::text), '' ORDER BY calldate, uniqueid, sequence)) FROM cdr c"
echo --
sha256sum /etc/ssl/labredes/key.pem /etc/ssl/labredes/certificate.pem /etc/ssh/labredes_host_*_key
stat --printf='%U %G %a %n\n' /etc/ssl/labredes/key.pem /etc/ssh/labredes_host_*_key
"""
PARTS = ("files", "values", "records", "identity")


def of(run: Callable[[str], str]) -> dict[str, list[str]]:
    """The state of the exchange on which a function runs shell lines as root."""
    return dict(
        zip(PARTS, ([line for line in part.splitlines() if line] for part in run(LOOK).split("--\n")), strict=True)
    )


if __name__ == "__main__":
    import sys
    from pathlib import Path

    from lab_host import LabHost

    print(json.dumps(of(LabHost(Path(sys.argv[1])).run), indent=2))
