"""What each image holds and how it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SUITES = {"bullseye": "Debian 11", "bookworm": "Debian 12"}
SOURCE = "https://github.com/labredes/pbx"
# The container that all images are made from, and in which the roles run: Debian with Python.
PACKAGES = ("python3", "python3-apt", "passwd", "ca-certificates", "tzdata")
# The users with the same numbers in every build, since volumes keep them.
USERS = {"asterisk": 5060, "postgres": 5432, "labredes-cdr": 5433, "labredes-events": 8888}
SETUP = r"""#!/bin/sh
set -eu
root="$1"
user() { # name, number, home
    chroot "$root" groupadd --system --gid "$2" "$1"
    chroot "$root" useradd --system --uid "$2" --gid "$1" --home-dir "$3" --no-create-home \
        --shell /usr/sbin/nologin "$1"
}
user asterisk 5060 /var/lib/asterisk
user labredes-cdr 5433 /nonexistent
user labredes-events 8888 /nonexistent
user postgres 5432 /var/lib/postgresql
chroot "$root" usermod --shell /bin/sh postgres
# The database is made when its container starts, not when the package is installed.
mkdir -p "$root/etc/postgresql-common"
printf "create_main_cluster = false\nadd_include_dir = 'conf.d'\n" >"$root/etc/postgresql-common/createcluster.conf"
# No service is started by a package.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
mv "$root/etc/apt/sources.list.d/0000sources.list" "$root/etc/apt/sources.list"
mv "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mirror"
"""
# Of a package only what programs need; the licence stays.
EXCLUDED = (
    *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "info", "locale", "lintian", "bug", "doc-base")),
    "path-include=/usr/share/doc/*/copyright",
)
# What the demo exchange has besides what the default one has: no database, and as many ports as are published.
DEMO = {
    "asterisk_cdr_pgsql": False,
    "labredes_sip_transports": ["udp", "tcp"],
    "labredes_rtp_start": 10000,
    "labredes_rtp_end": 10099,
}
# Moves the configuration that the roles have written to where the entrypoint finds it, with the names of the secrets
# in place of their values. It gets these as JSON, and runs in the container.
KEEP_DEMO = r"""
import json, os, re, shutil, sys
source, target = "/etc/asterisk", "/usr/share/labredes-pbx/demo"
secrets, used = json.load(sys.stdin), set()
shutil.rmtree(target, ignore_errors=True)
os.makedirs(target)
for name in sorted(os.listdir(source)):
    with open(os.path.join(source, name), encoding="utf-8") as opened:
        text = opened.read()
    for secret, value in secrets.items():
        text, found = re.subn("(?<![0-9A-Za-z])" + re.escape(value) + "(?![0-9A-Za-z])", "@" + secret + "@", text)
        used.update([secret] if found else [])
        assert value not in text or len(value) < 8, secret
    with open(os.path.join(target, name), "w", encoding="utf-8") as written:
        written.write(text)
    os.remove(os.path.join(source, name))
with open(os.path.join(target, "secrets"), "w", encoding="utf-8") as written:
    written.write("".join(name + "\n" for name in sorted(used)))
"""
# What the other images do not need.
PBX = ("/usr/share/labredes-pbx", "/etc/asterisk")
EVENTS = ("/usr/local/lib/labredes-events", "/etc/labredes-events")
RECORDS = ("/usr/local/sbin/labredes-cdr",)
HEALTH = {"Interval": 30, "Timeout": 10, "StartPeriod": 60, "Retries": 3}


@dataclass(frozen=True)
class Image:
    """One image. kept: the packages that stay, with what they depend on; removed: files that go besides."""

    name: str
    title: str
    kept: tuple[str, ...]
    user: str
    health: list[str]
    exposed: tuple[str, ...]
    directories: dict[str, str]  # path: owner, group and mode
    removed: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    stop: str = "SIGTERM"
    python: bool = False

    def config(self, labels: dict[str, str], environment: dict[str, str]) -> dict[str, Any]:
        """The configuration of the image, as docker's format has it."""
        path = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        return {
            "User": self.user,
            "Env": [f"{name}={value}" for name, value in {**path, **self.environment, **environment}.items()],
            "Entrypoint": [f"/usr/local/sbin/{self.name}"],
            "ExposedPorts": {port: {} for port in self.exposed},
            "Volumes": {},
            "WorkingDir": "/",
            "StopSignal": self.stop,
            "Labels": labels,
            "Healthcheck": {
                "Test": ["CMD", *self.health],
                **{key: seconds * (1 if key == "Retries" else 10**9) for key, seconds in HEALTH.items()},
            },
        }


IMAGES = (
    Image(
        name="labredes-pbx",
        title="Asterisk telephone exchange",
        kept=("labredes-asterisk", "odbc-postgresql", "unixodbc", "libradcli4", "tzdata"),
        user="asterisk",
        # It answers once all modules are loaded, and as long as its command line works. For one that is frozen it would
        # wait for ever, even after SIGTERM, and podman 4 with it.
        health=["timeout", "-s", "KILL", "9", "asterisk", "-rx", "core waitfullybooted"],
        exposed=("5060/udp", "5060/tcp", "5061/tcp", "8089/tcp", "5038/tcp", "8088/tcp"),
        environment={"ODBCINI": "/etc/asterisk/odbc.ini"},
        directories={
            "/etc/asterisk": "root asterisk 0750",
            "/etc/ssl/labredes": "root root 0755",
            "/var/spool/asterisk": "asterisk asterisk 0750",
            "/var/log/asterisk": "asterisk asterisk 0750",
            "/var/lib/asterisk": "asterisk asterisk 0755",
            "/run/asterisk": "asterisk asterisk 0750",
            "/run/labredes-cdr": "labredes-cdr labredes-cdr 0755",
            "/var/lib/labredes-cdr": "labredes-cdr labredes-cdr 2770",
        },
        # It writes to the journal of the call records, and connects to the socket beside it.
        groups={"asterisk": "labredes-cdr"},
        # With the mailboxes in one volume.
        links={"/var/lib/asterisk/astdb.sqlite3": "/var/spool/asterisk/astdb.sqlite3"},
        removed=EVENTS + RECORDS,
    ),
    Image(
        name="labredes-database",
        title="Database of a telephone exchange",
        kept=("postgresql",),
        user="postgres",
        health=["pg_isready", "--quiet"],
        exposed=("5432/tcp",),
        directories={
            "/var/lib/postgresql": "postgres postgres 0750",
            "/etc/postgresql": "postgres postgres 0755",
            "/run/postgresql": "postgres postgres 2775",
        },
        removed=(*EVENTS, *RECORDS, *PBX, "/etc/ssl/private/*", "/etc/ssl/certs/*"),
        # A fast shutdown, which does not wait for clients.
        stop="SIGINT",
    ),
    Image(
        name="labredes-records",
        title="Call records of a telephone exchange, on their way to the database",
        kept=("python3", "python3-psycopg2", "tzdata"),
        user="labredes-cdr",
        # It reports every two seconds, and more rarely while it waits for the database.
        health=["sh", "-c", 'test -n "$(find /run/labredes-cdr/status.json -mmin -1)"'],
        exposed=(),
        directories={
            "/etc/labredes-cdr": "root root 0755",
            "/run/labredes-cdr": "labredes-cdr labredes-cdr 0755",
            "/var/lib/labredes-cdr": "labredes-cdr labredes-cdr 2770",
        },
        removed=EVENTS + PBX,
        python=True,
    ),
    Image(
        name="labredes-events",
        title="Events of a telephone exchange, for browsers and programs",
        kept=("python3", "python3-aiohttp", "python3-psycopg2", "tzdata"),
        user="labredes-events",
        health=[
            *("python3", "-c"),
            "import ssl, urllib.request as u;"
            "u.urlopen('https://127.0.0.1:8888/healthz', timeout=5, context=ssl._create_unverified_context())",
        ],
        exposed=("8888/tcp",),
        directories={
            "/etc/labredes-events": "root labredes-events 0750",
            "/etc/ssl/labredes": "root root 0755",
            "/run/labredes-cdr": "labredes-cdr labredes-cdr 0755",
            "/run/labredes-events": "labredes-events labredes-events 0700",
            "/var/lib/labredes-events": "labredes-events labredes-events 0750",
        },
        # It reads the key of the certificate as Asterisk does.
        groups={"labredes-events": "asterisk"},
        removed=RECORDS + PBX,
        python=True,
    ),
)
