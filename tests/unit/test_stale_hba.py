"""Which rules of pg_hba.conf are stale."""

from ansible_collections.labredes.pbx.plugins.filter.stale_hba import stale_hba


def present(kind, database, user, source):
    rule = {"type": kind, "db": database, "usr": user, "method": "scram-sha-256"}
    return rule if kind == "local" else {**rule, "src": source}


def test_only_our_rules_from_unwanted_networks_are_stale():
    wanted = [
        {"contype": "host", "databases": "asterisk", "users": "asterisk", "source": "127.0.0.1/32"},
        {"contype": "hostssl", "databases": "asterisk", "users": "asterisk", "source": "192.0.2.9/24"},
        {"contype": "hostssl", "databases": "asterisk", "users": "asterisk", "source": "2001:DB8::/32"},
    ]
    rules = [
        present("local", "asterisk", "asterisk", None),
        present("host", "all", "all", "127.0.0.1/32"),
        present("host", "other", "asterisk", "198.51.100.0/24"),
        present("host", "asterisk", "asterisk", "127.0.0.1/32"),
        present("hostssl", "asterisk", "asterisk", "192.0.2.0/24"),
        present("hostssl", "asterisk", "asterisk", "2001:db8::/32"),
        present("host", "asterisk", "asterisk", "192.0.2.0/24"),
        present("hostssl", "asterisk", "asterisk", "198.51.100.0/24"),
    ]
    assert [(rule["contype"], rule["source"]) for rule in stale_hba(rules, wanted)] == [
        ("host", "192.0.2.0/24"),
        ("hostssl", "198.51.100.0/24"),
    ]
