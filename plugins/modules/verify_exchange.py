#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.verify_exchange: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: verify_exchange
short_description: Compare a running Asterisk exchange with its description, and place a call over each transport
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Over each transport one temporary phone on the exchange itself calls another through the context of users' phones,
    with RTP both ways, and the call record is read from PostgreSQL; it has to have come through O(journal) as well.
    Meanwhile CLI and ARI say what Asterisk runs.
  - Leaves nothing behind. The endpoints accept this machine's addresses alone and have a password of this run. A second
    process removes them, their calls and records, also after SIGKILL. No user's phone rings. Check mode does nothing.
requirements: ["python3-psycopg2", "the ARI user C(verify), sorcery.conf and extensions of roles asterisk and pbx"]
options:
  described:
    description: >-
      What has to run, and nothing else of the same kind, as C({kind: {name: {setting: value}}}). Kinds are endpoint,
      auth, aor and transport, with the settings that ARI shows, and those of module_utils/running_exchange.py.
    type: dict
    required: true
  passwords: {description: "Passwords of the described auth objects, by name.", type: dict, default: {}}
  servers:
    description: Address of each transport, such as V(127.0.0.1:5060); that over IPv6 has the name C(udp6) and so on.
    type: dict
    required: true
  certificate: {description: File with the certificate that tls and wss have to serve., type: path}
  ari_url: {description: "URL of ARI, without a slash at the end.", type: str, required: true}
  ari_password: {description: Password of the ARI user C(verify)., type: str, required: true}
  talk: {description: "Length of the calls, in seconds.", type: float, default: 1.5}
  timeout: {description: "Time limit of each step, such as registering, in seconds.", type: float, default: 8}
  table: {description: Table of the call records., type: str, default: cdr}
  cel: {description: Whether channel events are recorded in the table C(cel)., type: bool, default: false}
  journal: {description: "Journal of the call records, on the host itself; empty for none.", type: path, default: ""}
  database: {description: "Its database, libpq's C(host, port, dbname, user).", type: dict, required: true}
  database_password: {description: Password of that user., type: str, required: true}
  events: {description: "Address of the events service, such as V(127.0.0.1:8888).", type: str}
"""

EXAMPLES = r"""
- name: Compare the exchange with its description, and place calls
  labredes.pbx.verify_exchange:
    described: {endpoint: {"6001": {context: from-internal}}, queue: {ColaUno: {strategy: ringall}}}
    servers: {udp: "127.0.0.1:5060"}
    ari_url: http://127.0.0.1:8088/ari
    ari_password: "{{ lookup('labredes.pbx.secret', 'ari_verify') }}"
    journal: /var/lib/labredes-cdr/journal.db
    database: {host: localhost, port: 5432, dbname: asterisk, user: asterisk}
    database_password: "{{ lookup('labredes.pbx.secret', 'database_password') }}"
"""

RETURN = r"""
calls: {description: Figures of the call over each transport and its record., returned: after calls, type: dict}
"""

import re
import secrets
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException, HTTPSConnection

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils import running_exchange as exchange
from ansible_collections.labredes.pbx.plugins.module_utils.ari import Ari
from ansible_collections.labredes.pbx.plugins.module_utils.asterisk_cli import AsteriskError, cli
from ansible_collections.labredes.pbx.plugins.module_utils.call_records import CallRecords, DatabaseError
from ansible_collections.labredes.pbx.plugins.module_utils.cdr_journal import CdrJournal
from ansible_collections.labredes.pbx.plugins.module_utils.cleanup_process import CleanupProcess
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import SipError
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, place_call

CALLER = "verify"  # caller ID, endpoint and auth; without a dash, which Asterisk removes from a number
NAMES = ("udp", "udp6", "tcp", "tcp6", "tls", "tls6", "wss")
CALLEES = {transport: "verify-" + transport for transport in NAMES}  # endpoint and extension
AOR = {"max_contacts": "1", "remove_existing": "yes", "maximum_expiration": "60"}
ENDPOINT = {"auth": CALLER, "context": "from-internal", "callerid": f"{CALLER} <{CALLER}>", "disallow": "all"}
# The time limit, in seconds, ends a call that nothing else ends.
ENDPOINT.update(allow="ulaw", direct_media="no", rewrite_contact="yes", allow_subscribe="no", rtp_timeout="30")
CURE = "run playbooks asterisk.yml and pbx.yml, and restart asterisk.service if that changes nothing"
ACCOUNT = "verify-"  # how the account codes of the calls begin
CHANNELS = "PJSIP/verify-"  # and their channels
REMOVE = "DELETE FROM {table} WHERE accountcode LIKE 'verify-%%' AND position(%s in uniqueid) = 1 RETURNING 1"
REMOVE_EVENTS = f"DELETE FROM cel WHERE channame LIKE '{CHANNELS}%%' AND position(%s in uniqueid) = 1 RETURNING 1"  # noqa: S608
LOG = "see /var/log/asterisk/messages"
SHOWN = 30  # problems
PROBLEMS = (AsteriskError, DatabaseError, SipError, OSError)


class Verification:
    """The calls, the comparison, and what has to be removed afterwards."""

    def __init__(self, options):
        self.options, self.seconds = options, options["timeout"]
        self.ari = Ari(options["ari_url"], "verify", options["ari_password"], self.seconds / 2)
        login = dict(options["database"], password=options["database_password"])
        self.records = CallRecords(options["table"], login, self.seconds / 2)
        self.journal, self.written = CdrJournal(options["journal"]), 0
        self.password, self.name = secrets.token_hex(16), ""
        self.token = ACCOUNT + secrets.token_hex(6)  # 19 characters; accountcode has 20 in older tables

    def check(self):
        """Fail at once where nothing can be proved; remove what an earlier run on the exchange of this name left."""
        cli("core waitfullybooted", self.seconds)
        self.name = self.ari.request("GET", "/asterisk/info?only=config")["config"]["name"] + "-"
        self.records.query(REMOVE, self.name)
        if self.options["cel"]:
            self.records.query(REMOVE_EVENTS, self.name)
        self.written = self.journal.written()
        self._remove_endpoints()

    def run(self):
        """Call and compare, all at the same time; returns the figures of the calls, and the problems as sentences."""
        self._make_endpoints()
        figures, problems = {}, []
        with ThreadPoolExecutor(len(CALLEES) + 2) as pool:
            calls = {transport: pool.submit(self._call, transport) for transport in self.options["servers"]}
            compared = pool.submit(self._compare, calls)
            asked = pool.submit(self._ask_events)
            for transport, call in calls.items():
                try:
                    figures[transport] = call.result()
                except PROBLEMS as problem:
                    problems.append(f"over {transport}, {problem}; {LOG}")
            for step in ([] if problems else [lambda: self._read_records(figures)]) + [compared.result, asked.result]:
                try:
                    problems += step()
                except PROBLEMS as problem:
                    problems.append(str(problem))
        return figures, problems

    def remove(self):
        """Remove everything, whatever there is; returns the failures as sentences. Runs in another process."""
        failures = []
        for step in (self._remove_endpoints, self._remove_records):
            try:
                step()
            except PROBLEMS as problem:
                failures.append(f"the verification's own objects are not removed, since {problem}")
        return failures

    def _make_endpoints(self):
        addresses = sorted({server.rpartition(":")[0].strip("[]") for server in self.options["servers"].values()})
        # One list, for two attributes, permit and deny, might be applied in either order.
        own = {"accountcode": self.token, "permit": ",".join(["!0.0.0.0/0", "!::/0"] + addresses)}
        auth = {"auth_type": "userpass", "username": CALLER, "password": self.password}
        self.ari.object("PUT", "auth", CALLER, auth)
        self.ari.object("PUT", "endpoint", CALLER, dict(ENDPOINT, **own))
        for name in (CALLEES[transport] for transport in self.options["servers"]):
            self.ari.object("PUT", "aor", name, AOR)
            self.ari.object("PUT", "endpoint", name, dict(ENDPOINT, aors=name, **own))

    def _call(self, transport):
        host, _colon, port = self.options["servers"][transport].rpartition(":")
        address = (host.strip("[]"), int(port))
        lines = [Connection(transport.rstrip("6"), address, self.seconds / 2) for _end in range(2)]
        self._compare_certificate(port, lines[0].certificate)
        phones = [Phone(name, (CALLER, self.password), line) for name, line in zip((CALLER, CALLEES[transport]), lines)]
        figures = place_call(phones, self.options["talk"], self.seconds)
        for line in lines:
            line.close()
        return figures

    def _compare_certificate(self, port, served):
        """Fail where a port serves, in DER, another certificate than the one on disk; one that serves none is right."""
        if served:
            with open(self.options["certificate"], encoding="utf-8") as file:  # it may have its chain and key too
                if "".join(ssl.DER_cert_to_PEM_cert(served).split()) not in "".join(file.read().split()):
                    raise SipError(f"port {port} serves another certificate than that of {file.name}")

    def _ask_events(self):
        """Whether the events service is connected to Asterisk, which takes a moment; returns problems as sentences."""
        if not self.options["events"]:
            return []
        host, _colon, port = self.options["events"].rpartition(":")
        deadline, answer = time.monotonic() + self.seconds, ""
        while '"connected"' not in answer and time.monotonic() < deadline:
            time.sleep(0.2 if answer else 0)
            connection = HTTPSConnection(
                host.strip("[]"), int(port), timeout=self.seconds / 2, context=ssl._create_unverified_context()
            )
            try:
                connection.request("GET", "/healthz")
                served = connection.sock.getpeercert(True)
                answer = connection.getresponse().read().decode("utf-8", "replace")
            except (OSError, HTTPException) as problem:
                answer = str(problem)
            finally:
                connection.close()
        if '"connected"' in answer:
            self._compare_certificate(port, served)
            return []
        said = f"the events service on port {port} is not connected to Asterisk ({answer})"
        return [f"{said}; run playbook events.yml, and see journalctl --unit=labredes-events"]

    def _channels(self):
        return [item["id"] for item in self.ari.request("GET", "/channels") if item["name"].startswith("PJSIP/verify-")]

    def _compare(self, calls):
        """The differences between what runs and what is described, as sentences."""
        described = {kind: dict(objects or {}) for kind, objects in self.options["described"].items()}
        for name, password in self.options["passwords"].items():
            described["auth"][name] = dict(described["auth"][name], password=password)
        # Only a channel knows whether the Lua part of the dialplan has an extension.
        centres, channels = described.pop("call centre", {}), self._channels()
        while centres and not channels and not all(call.done() for call in calls.values()):
            time.sleep(0.02)
            channels = self._channels()
        question = "/channels/{}/variable?variable=DIALPLAN_EXISTS(call-centres,{},1)"
        answers = {name: self.ari.request("GET", question.format(channels[0], name)) for name in centres if channels}
        missing = [f"call centre {name} is missing" for name, answer in answers.items() if answer == {"value": "0"}]
        found = missing + exchange.differences(described, exchange.running(described, self.ari, self.seconds / 2))
        return [f"what runs differs from what is described, in {len(found)} places; {CURE}"] * bool(found) + found

    def _read_records(self, figures):
        """Give each call its record, once Asterisk has written it; returns the problems as sentences."""
        problems, deadline = [], time.monotonic() + self.seconds
        rows: list = []
        while len(rows) < len(figures) and time.monotonic() < deadline:
            rows = self.records.query("SELECT * FROM {table} WHERE accountcode = %s", self.token)
            time.sleep(0.05 if len(rows) < len(figures) else 0)
        problems += self._read_journal(len(figures), deadline)
        for transport, call in figures.items():
            found = [row for row in rows if row["dst"] == CALLEES[transport]]
            facts = [(row["src"], row["disposition"], row["billsec"] - int(call["seconds"])) for row in found]
            if facts not in ([(CALLER, "ANSWERED", 0)], [(CALLER, "ANSWERED", 1)]):
                left = [{key: row[key] for key in ("src", "disposition", "billsec")} for row in found]
                right = f"should leave one record, src {CALLER} and ANSWERED, in table {self.records.table}"
                problems.append(
                    f"the call over {transport}, of {call['seconds']:.1f} s, {right}, but left {left}; {LOG}"
                )
            call["cdr"] = found[:1]
        return problems

    def _read_journal(self, count, deadline):
        """Wait until the records have come and gone; returns the problems as sentences. PostgreSQL may have them from
        Asterisk itself, which does not say that the next outage loses none."""
        if not self.journal.path:
            return []
        new, waiting = 0, count
        while (new < count or waiting) and time.monotonic() < deadline:
            new, waiting = self.journal.written() - self.written, self.journal.waiting(self.token)
            time.sleep(0.05 if new < count or waiting else 0)
        if new < count:
            return [f"Asterisk has written {new} of {count} records to the journal {self.journal.path}; {LOG}"]
        if waiting:
            return [f"{waiting} of {count} records still wait in the journal; see journalctl --unit=labredes-cdr"]
        return []

    def _remove_endpoints(self):
        for _attempt in range(20):
            channels = self._channels()
            for channel in channels:
                self.ari.request("DELETE", "/channels/" + channel)
            if not channels:
                break
            time.sleep(0.1)
        registered = cli("database show registrar/contact", self.seconds / 2)
        for contact in re.findall(r"/registrar/contact/(verify-\w+;@\w+)", registered):
            self.ari.object("DELETE", "contact", contact)
        for name in [CALLER] + list(CALLEES.values()):
            for kind in ("endpoint", "aor", "auth"):
                self.ari.object("DELETE", kind, name)

    def _remove_records(self):
        """Delete the records of the calls; that of a call that was cut off may be written a moment later."""
        count, deadline, done = 0, time.monotonic() + 2, False
        while not done and time.monotonic() < deadline:
            # What waits is forwarded after this, even if Asterisk itself has written it, and deleted then.
            waited = self.journal.waiting(ACCOUNT)
            count += len(self.records.query(REMOVE, self.name))
            done = count >= len(self.options["servers"]) and not waited and not self.journal.waiting(ACCOUNT)
            time.sleep(0 if done else 0.1)
        if not done and self.journal.waiting(ACCOUNT):
            self.journal.remove(ACCOUNT)
            self.records.query(REMOVE, self.name)
        if self.options["cel"]:
            while self.journal.events(CHANNELS) and time.monotonic() < deadline:
                time.sleep(0.1)
            self.journal.remove_events(CHANNELS)
            self.records.query(REMOVE_EVENTS, self.name)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "described": {"type": "dict", "required": True},
            "passwords": {"type": "dict", "default": {}, "no_log": True},
            "servers": {"type": "dict", "required": True},
            "certificate": {"type": "path"},
            "ari_url": {"required": True},
            "ari_password": {"required": True, "no_log": True},
            "talk": {"type": "float", "default": 1.5},
            "timeout": {"type": "float", "default": 8},
            "table": {"default": "cdr"},
            "journal": {"type": "path", "default": ""},
            "cel": {"type": "bool", "default": False},
            "database": {"type": "dict", "required": True},
            "database_password": {"required": True, "no_log": True},
            "events": {},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, msg="check mode: nothing was compared, and no call was placed")
    calls, problems = {}, []
    try:
        verification = Verification(module.params)
        verification.check()
        cleanup = CleanupProcess(verification.remove)
        try:
            calls, problems = verification.run()
        finally:
            problems += cleanup.finish()
    except PROBLEMS as problem:
        problems.append(str(problem))
    if problems:
        shown = problems[:SHOWN] + [f"{len(problems) - SHOWN} more are not shown"] * (len(problems) > SHOWN)
        module.fail_json(msg="verify: " + " ".join(problem[0].upper() + problem[1:] + "." for problem in shown))
    module.exit_json(changed=False, calls=calls)


if __name__ == "__main__":
    main()
