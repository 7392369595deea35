#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.verify_call: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: verify_call
short_description: Prove an Asterisk exchange by a call between two temporary phones
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Runs on the exchange. Makes two endpoints by ARI push configuration, registers a test phone at
    each over UDP, has one call the other, sends RTP both ways, hangs up, and reads the call record
    back from PostgreSQL.
  - Leaves nothing behind. The endpoints exist only in the exchange's memory, accept only this
    machine's address and have passwords of this one run; registrations, endpoints and the call
    record are removed whatever happens. No configured phone rings or is touched.
  - Never changes anything, so it always reports C(changed=false). In check mode no call is placed.
requirements:
  - res_ari_asterisk loaded, and an ARI user that may write
  - in sorcery.conf a memory wizard behind the configuration file for auth, aor and endpoint of res_pjsip
  - in the dialplan an extension that dials C(PJSIP/verify-callee), in a context no phone has
  - libpq5, which the exchange needs for its own call records
options:
  ari_url:
    description: Where ARI is, without a slash at the end.
    type: str
    default: http://127.0.0.1:8088/ari
  ari_user:
    description: An ARI user that may write.
    type: str
    default: verify
  ari_password:
    description: The password of O(ari_user).
    type: str
    required: true
  sip_host:
    description: An IPv4 address of this machine that the exchange's UDP transport listens at.
    type: str
    default: 127.0.0.1
  sip_port:
    description: The port of the exchange's UDP transport.
    type: int
    default: 5060
  context:
    description: The dialplan context that holds O(extension).
    type: str
    default: verify
  extension:
    description: The extension that dials C(PJSIP/verify-callee).
    type: str
    default: callee
  talk:
    description: How long RTP flows, in seconds.
    type: float
    default: 1.5
  timeout:
    description: How long each step (registering, setting up, hanging up, the call record) may take, in seconds.
    type: float
    default: 10
  database:
    description: The database the exchange writes its call records to.
    type: dict
    required: true
    suboptions:
      host:
        description: Its address, or the directory of its socket.
        type: str
        default: 127.0.0.1
      port:
        description: Its port.
        type: int
        default: 5432
      name:
        description: Name of the database.
        type: str
        default: asterisk
      table:
        description: Table of the call records.
        type: str
        default: cdr
      user:
        description: A role that may read and delete in O(database.table).
        type: str
        default: asterisk
      password:
        description: The password of O(database.user).
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Place a call from one temporary phone to another
  labredes.pbx.verify_call:
    ari_password: "{{ lookup('labredes.pbx.secret', 'ari_verify') }}"
    database:
      password: "{{ lookup('labredes.pbx.secret', 'database_password') }}"
"""

RETURN = r"""
register_ms:
  description: From the first REGISTER to its 200, challenge included; the slower of the two phones. Milliseconds.
  returned: when a call was placed
  type: float
setup_ms:
  description: From the first INVITE to its 200; the called phone answers once the caller hears it ring. Milliseconds.
  returned: when a call was placed
  type: float
rtp:
  description: How many frames of 20 ms each phone sent, and how many of the other's frames each received.
  returned: when a call was placed
  type: dict
  sample: {sent: 75, caller_received: 75, callee_received: 75}
cdr:
  description: The call record as it was found in PostgreSQL.
  returned: when a call was placed
  type: dict
  sample: {src: verify, dst: callee, disposition: ANSWERED, duration: "2", billsec: "2"}
"""

import re
import secrets
import signal
import socket
import time
from contextlib import contextmanager

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.ari import Ari, AriError
from ansible_collections.labredes.pbx.plugins.module_utils.libpq import Database, DatabaseError
from ansible_collections.labredes.pbx.plugins.module_utils.rtp import FRAME_SECONDS, Stream
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import SipError
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait

CALLER, CALLEE = "verify-caller", "verify-callee"
CALLER_ID = "verify"  # without a dash, which Asterisk takes out of a number
KINDS = ("endpoint", "aor", "auth")
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LOG = "see /var/log/asterisk/messages"
ENOUGH = 0.8  # of the frames; an exchange that is learning where RTP comes from may drop the first few


class Interrupted(Exception):
    """A signal asked the module to end; cleaning up comes first."""


class Test:
    """One verification: who calls whom at which exchange, and what has to be removed afterwards."""

    def __init__(self, options):
        self.options = options
        self.server = (options["sip_host"], options["sip_port"])
        self.seconds = options["timeout"]
        self.token = "verify-" + secrets.token_hex(6)  # 19 characters: the original's column holds 20
        self.ari = Ari(options["ari_url"], options["ari_user"], options["ari_password"], self.seconds)
        self.database = None
        self.dialled = False
        self.rest = []  # calls that put things back, to be made in reverse order

    def run(self):
        """Place the call and read its record; returns the module's result."""
        self._connect()
        caller, callee, streams = self._phones()
        result = {"register_ms": max(self._register(phone) for phone in (caller, callee))}
        result["setup_ms"] = self._call(caller, callee)
        began = time.monotonic()
        result["rtp"] = self._talk((caller, callee), streams)
        self._hang_up(caller, callee)
        result["cdr"] = self._record(time.monotonic() - began)
        return result

    def clean(self):
        """Put back everything, and go on after a failure; returns the failures as sentences."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        failures = []
        while self.rest:
            try:
                self.rest.pop()()
            except (AriError, DatabaseError, SipError, OSError) as problem:
                failures.append(str(problem))
        return failures

    # --- the steps

    def _connect(self):
        """Reach the database before anything else: without it the call would prove nothing."""
        given = self.options["database"]
        # A table's name cannot be a parameter of a statement.
        if not re.match(r"^[A-Za-z_][A-Za-z0-9_.]*$", given["table"]):
            raise DatabaseError("database.table is %r; give the name of a table" % given["table"])
        self.database = Database(
            given["host"], given["port"], given["name"], given["user"], given["password"], self.seconds
        )
        self.rest.append(self.database.close)
        self.database.query("SELECT 1 FROM %s LIMIT 1" % given["table"])
        self.rest.append(self._remove_record)

    def _phones(self):
        """Two endpoints in the exchange's memory, and a phone with a stream for each."""
        phones, streams = [], []
        for name in (CALLER, CALLEE):
            stream = Stream(_local_address(self.server))
            self.rest.append(stream.close)
            phone = Phone(name, secrets.token_hex(16), self.server, stream.port)
            self.rest.append(phone.close)
            self._make_endpoint(name, phone)
            phones.append(phone)
            streams.append(stream)
        return phones[0], phones[1], streams

    def _make_endpoint(self, name, phone):
        """Give the exchange what a phone needs, reachable from this machine's own address alone."""
        # An earlier run that was killed may have left its objects: a PUT would mix them with ours.
        for kind in KINDS:
            self.ari.delete(kind, name)
        objects = {
            "auth": [("auth_type", "userpass"), ("username", name), ("password", phone.password)],
            "aor": [("max_contacts", "1"), ("remove_existing", "yes"), ("maximum_expiration", "60")],
            "endpoint": [
                ("auth", name),
                ("aors", name),
                ("context", self.options["context"]),
                ("disallow", "all"),
                ("allow", "ulaw"),
                ("direct_media", "no"),
                ("allow_subscribe", "no"),
                ("callerid", "%s <%s>" % (CALLER_ID, CALLER_ID)),
                ("accountcode", self.token),
                ("rtp_timeout", "5"),  # should this process be killed, the exchange ends the call by itself
                # One list, for two attributes might be taken in either order.
                ("permit", "!0.0.0.0/0,!::/0,%s" % phone.host),
            ],
        }
        for kind in reversed(KINDS):
            self.rest.append(lambda kind=kind: self.ari.delete(kind, name))
            self.ari.put(kind, name, objects[kind])

    def _register(self, phone):
        """Register a phone; returns the milliseconds it took."""
        asked = phone.register()
        self.rest.append(lambda: self._unregister(phone))
        self._finish([phone], asked, "REGISTER", "res_pjsip_registrar may not be loaded, " + LOG)
        return _milliseconds(asked.seconds)

    def _unregister(self, phone):
        self._finish([phone], phone.register(0), "REGISTER that ends a registration", LOG)

    def _call(self, caller, callee):
        """Dial until both phones are in the call; returns the milliseconds it took."""
        phones = [caller, callee]
        self.dialled = True
        asked = caller.dial(self.options["extension"])
        self.rest.append(lambda: self._give_up(phones, asked))
        deadline = time.monotonic() + self.seconds
        wait(phones, lambda: asked.final or (caller.call.ringing and callee.incoming), deadline)
        if asked.final is None and callee.incoming is None:
            raise SipError("the call did not reach the other phone within %g s; %s" % (self.seconds, LOG))
        if asked.final is None:
            callee.answer()
        hint = LOG
        if asked.final is not None and asked.final.status == 404:
            hint = "extension %s of context %s is missing from the dialplan" % (
                self.options["extension"],
                self.options["context"],
            )
        self._finish(phones, asked, "INVITE", hint)
        if not wait(phones, lambda: callee.call is not None and callee.call.confirmed, deadline):
            raise SipError("the exchange answered the caller but not the phone it called; " + LOG)
        return _milliseconds(asked.seconds)

    def _talk(self, phones, streams):
        """Send RTP both ways; returns the counts."""
        frames = max(1, int(round(self.options["talk"] / FRAME_SECONDS)))
        for index, (phone, stream) in enumerate(zip(phones, streams)):
            stream.start((self.server[0], phone.call.audio_port), frames, streams[1 - index].mark)
        deadline = time.monotonic() + frames * FRAME_SECONDS + 0.5
        parties = list(phones) + streams
        wait(
            parties,
            lambda: all(len(stream.received) == frames for stream in streams)
            or any(phone.call.ended for phone in phones),
            deadline,
        )
        if any(phone.call.ended for phone in phones):
            raise SipError("the exchange ended the call in the middle; " + LOG)
        for stream, name in zip(streams, ("caller", "called phone")):
            if len(stream.received) < ENOUGH * frames:
                raise SipError(
                    "the %s received %d of the %d RTP frames sent to it (%d of its own came back, %d were of nobody in "
                    "the call); is a firewall between the exchange and itself, or are its RTP ports taken?"
                    % (name, len(stream.received), frames, stream.echoes, stream.strangers)
                )
        received = [len(stream.received) for stream in streams]
        return {"sent": frames, "caller_received": received[0], "callee_received": received[1]}

    def _hang_up(self, caller, callee):
        asked = caller.hang_up()
        self._finish([caller, callee], asked, "BYE", LOG)
        if not wait([caller, callee], lambda: callee.call.ended, time.monotonic() + self.seconds):
            raise SipError("the caller hung up, but the exchange did not end the call of the other phone; " + LOG)

    def _give_up(self, phones, invite):
        """End a call that failed half way: BYE or CANCEL, and time for the other side to end too."""
        caller = phones[0]
        if caller.call.ended:
            return
        (caller.hang_up if caller.call.answered else lambda: caller.cancel(invite))()
        wait(phones, lambda: all(phone.call is None or phone.call.ended for phone in phones), time.monotonic() + 2)

    def _finish(self, phones, asked, what, hint):
        """Wait for the final response to a request; SipError unless it is a 2xx."""
        if not wait(phones, lambda: asked.final, time.monotonic() + self.seconds):
            raise SipError("the exchange did not answer the %s within %g s; %s" % (what, self.seconds, hint))
        if asked.final.status >= 300:
            raise SipError("the exchange answered the %s with %s; %s" % (what, asked.final.reason, hint))

    # --- the call record

    def _record(self, elapsed):
        """The one record of the call, once the exchange has written it; elapsed is the talk in seconds."""
        table = self.options["database"]["table"]
        deadline = time.monotonic() + self.seconds
        rows = []
        while not rows:
            rows = self.database.query("SELECT * FROM %s WHERE accountcode = $1" % table, self.token)
            if not rows and time.monotonic() > deadline:
                raise DatabaseError(
                    "the call went through, but no record of it is in table %s after %g s; "
                    "cdr_pgsql lost it, %s" % (table, self.seconds, LOG)
                )
            time.sleep(0.1)
        rows = self.database.query("SELECT * FROM %s WHERE accountcode = $1" % table, self.token)
        if len(rows) != 1:
            raise DatabaseError("the one call left %d records in table %s" % (len(rows), table))
        record = rows[0]
        wanted = {"src": CALLER_ID, "dst": self.options["extension"], "disposition": "ANSWERED"}
        for column, value in wanted.items():
            if record.get(column) != value:
                raise DatabaseError(
                    "the call's record has %s %r where %r is right" % (column, record.get(column), value)
                )
        if not int(elapsed) <= int(record["billsec"]) <= elapsed + 1:
            raise DatabaseError(
                "the call's record says %s s were billed where %.1f s were spoken" % (record["billsec"], elapsed)
            )
        return record

    def _remove_record(self):
        """Delete what the call left in the table; a call that failed may be recorded a moment later."""
        statement = "DELETE FROM %s WHERE accountcode = $1 RETURNING 1" % self.options["database"]["table"]
        deadline = time.monotonic() + (2 if self.dialled else 0)
        while not self.database.query(statement, self.token) and time.monotonic() < deadline:
            time.sleep(0.1)


def _local_address(server):
    """The address this machine has towards the exchange: the only one its temporary endpoints accept."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(server)
        return probe.getsockname()[0]


def _milliseconds(seconds):
    return round(seconds * 1000, 1)


@contextmanager
def _alone():
    """One verification at a time on a machine; the name in the abstract name space leaves no file behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as lock:
        try:
            lock.bind("\0labredes.pbx.verify")
        except OSError:
            raise SipError("another verification is running on this host; wait until it has ended")
        yield


def _interrupted(number, _frame):
    raise Interrupted("interrupted by %s" % signal.Signals(number).name)


def main():
    """Run the module."""
    database = {
        "host": {"default": "127.0.0.1"},
        "port": {"type": "int", "default": 5432},
        "name": {"default": "asterisk"},
        "table": {"default": "cdr"},
        "user": {"default": "asterisk"},
        "password": {"required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "ari_url": {"default": "http://127.0.0.1:8088/ari"},
            "ari_user": {"default": "verify"},
            "ari_password": {"required": True, "no_log": True},
            "sip_host": {"default": "127.0.0.1"},
            "sip_port": {"type": "int", "default": 5060},
            "context": {"default": "verify"},
            "extension": {"default": "callee"},
            "talk": {"type": "float", "default": 1.5},
            "timeout": {"type": "float", "default": 10},
            "database": {"type": "dict", "required": True, "options": database},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, msg="check mode: no call was placed")
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    test = Test(module.params)
    problem, result = None, {}
    try:
        with _alone():
            try:
                result = test.run()
            finally:
                failures = test.clean()
        if failures:
            problem = "the call went through, but was not cleared away: " + "; ".join(failures)
    except (AriError, DatabaseError, SipError, Interrupted, OSError) as error:
        problem = str(error)
    if problem:
        module.fail_json(msg="verify: " + problem + ("" if problem.endswith("?") else "."))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
