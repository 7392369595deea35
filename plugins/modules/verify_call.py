#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.verify_call: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: verify_call
short_description: Verify an Asterisk exchange by a call between two temporary phones
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Runs on the exchange. Creates two endpoints by ARI push configuration, registers a test phone at each over UDP, has
    one call the other, sends RTP both ways, hangs up, and reads the call record back from PostgreSQL.
  - Leaves nothing behind. The endpoints exist only in Asterisk's memory, accept only this machine's address and have
    passwords of this one run; registrations, endpoints and the call record are removed also after a failure. No
    configured phone rings. The module always reports C(changed=false), and in check mode places no call.
requirements:
  - python3-psycopg2
  - res_ari_asterisk, the ARI user C(verify), a memory wizard for auth, aor and endpoint in sorcery.conf, and extension
    C(callee) of context C(verify), which dials C(PJSIP/verify-callee); role asterisk configures them
options:
  ari_url: {description: "URL of ARI, without a slash at the end.", type: str, required: true}
  ari_password: {description: Password of the ARI user C(verify)., type: str, required: true}
  sip_host:
    description: An IPv4 address of this machine on which Asterisk's UDP transport listens.
    type: str
    default: 127.0.0.1
  sip_port: {description: Port of Asterisk's UDP transport., type: int, default: 5060}
  talk: {description: "Length of the call, in seconds.", type: float, default: 1.5}
  timeout:
    description: Time limit of each step (registering, setting up, hanging up, the call record), in seconds.
    type: float
    default: 10
  table: {description: Table of the call records., type: str, default: cdr}
  database:
    description: Connection parameters of libpq for that table's database, C(host), C(port), C(dbname) and C(user).
    type: dict
    required: true
  database_password: {description: Password of that user., type: str, required: true}
"""

EXAMPLES = r"""
- name: Place a call from one temporary phone to the other
  labredes.pbx.verify_call:
    ari_url: http://127.0.0.1:8088/ari
    ari_password: "{{ lookup('labredes.pbx.secret', 'ari_verify') }}"
    database: {host: localhost, port: 5432, dbname: asterisk, user: asterisk}
    database_password: "{{ lookup('labredes.pbx.secret', 'database_password') }}"
"""

RETURN = r"""
register_ms:
  description: Milliseconds from the first REGISTER to its 200, challenge included; the slower of the two phones.
  returned: when a call was placed
  type: float
setup_ms:
  description: Milliseconds from the first INVITE to its 200; the called phone answers once the caller hears it ring.
  returned: when a call was placed
  type: float
rtp:
  description: How many frames of 20 ms each phone sent (C(sent)), and received of the other's (C(caller_received) ...).
  returned: when a call was placed
  type: dict
cdr: {description: The call record as it was found in PostgreSQL., returned: when a call was placed, type: dict}
"""

import secrets
import signal
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.ari import Ari, AriError
from ansible_collections.labredes.pbx.plugins.module_utils.call_records import CallRecords, DatabaseError
from ansible_collections.labredes.pbx.plugins.module_utils.rtp import FRAME_SECONDS
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import SipError
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone, wait

CALLER = "verify-caller"
CALLEE = "verify-callee"
CALLER_ID = "verify"  # no dash: Asterisk removes it from a number
EXTENSION = "callee"
CONTEXT = "verify"
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
LOG = "see /var/log/asterisk/messages"
ENOUGH = 0.8  # of the frames; the first few may be lost while Asterisk learns the phones' RTP addresses
PROBLEMS = (AriError, DatabaseError, SipError, OSError)


class Verification:
    """One call and what has to be removed after it."""

    def __init__(self, options):
        self.server = (options["sip_host"], options["sip_port"])
        self.seconds, self.talk = options["timeout"], options["talk"]
        self.ari = Ari(options["ari_url"], "verify", options["ari_password"], self.seconds)
        login = dict(options["database"], password=options["database_password"])
        self.records = CallRecords(options["table"], login, self.seconds / 2)
        self.token = "verify-" + secrets.token_hex(6)  # 19 characters; accountcode has 20 in older tables
        self.cleanup = []  # functions, to be called in reverse order

    def run(self):
        """Place the call and read its record; returns the module's result."""
        # First, since without the table a call would prove nothing. A record that an earlier run could not remove,
        # because PostgreSQL had stopped answering, goes with it; a day is longer than time zones differ.
        self.records.query(
            "DELETE FROM {table} WHERE accountcode LIKE 'verify-%%' AND src = %s AND dst = %s"
            " AND calldate < localtimestamp - interval '1 day' RETURNING 1",
            CALLER_ID,
            EXTENSION,
        )
        caller, callee = self._phone(CALLER), self._phone(CALLEE)
        result = {"register_ms": max(self._register(phone) for phone in (caller, callee))}
        result["setup_ms"] = self._call(caller, callee)
        began = time.monotonic()
        result["rtp"] = self._talk(caller, callee)
        self._finish([caller, callee], caller.hang_up(), "BYE")
        if not wait([caller, callee], lambda: callee.call.ended, self.seconds):
            raise SipError("the caller hung up, but the exchange did not end the call of the other phone; " + LOG)
        result["cdr"] = self._record(time.monotonic() - began)
        return result

    def clean(self):
        """Remove everything, also after a failure; returns the failures as sentences."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        failures = []
        while self.cleanup:
            try:
                self.cleanup.pop()()
            except PROBLEMS as problem:
                failures.append(str(problem))
        return failures

    def _phone(self, name):
        """A phone, and what Asterisk needs to know of it, usable from this machine's own address alone."""
        phone = Phone(name, secrets.token_hex(16), self.server)
        self.cleanup.append(phone.close)
        endpoint = {
            "auth": name,
            "aors": name,
            "context": CONTEXT,
            "disallow": "all",
            "allow": "ulaw",
            "direct_media": "no",
            "allow_subscribe": "no",
            "callerid": f"{CALLER_ID} <{CALLER_ID}>",
            "accountcode": self.token,
            "rtp_timeout": "5",  # ends the call even if this process is killed
            # One list, for two attributes might be applied in either order.
            "permit": f"!0.0.0.0/0,!::/0,{phone.host}",
        }
        objects = {
            "auth": {"auth_type": "userpass", "username": name, "password": phone.password},
            "aor": {"max_contacts": "1", "remove_existing": "yes", "maximum_expiration": "60"},
            "endpoint": endpoint,
        }
        # What a killed run left is removed first: a PUT would mix its attributes with these.
        for kind in reversed(list(objects)):
            self.ari.request("DELETE", kind, name)
        for kind, fields in objects.items():
            self.cleanup.append(lambda kind=kind: self.ari.request("DELETE", kind, name))
            self.ari.request("PUT", kind, name, fields)
        return phone

    def _register(self, phone):
        """Register a phone; returns the milliseconds it took."""
        asked = phone.register()
        self.cleanup.append(lambda: self._finish([phone], phone.register(0), "REGISTER that ends a registration"))
        return self._finish([phone], asked, "REGISTER", "res_pjsip_registrar may not be loaded, " + LOG)

    def _call(self, caller, callee):
        """Dial and answer; returns the milliseconds until the caller was connected."""
        phones = [caller, callee]
        self.cleanup.append(self._remove_record)
        asked = caller.dial(EXTENSION)
        self.cleanup.append(lambda: self._give_up(phones, asked))
        wait(phones, lambda: asked.final or (caller.call.ringing and callee.incoming), self.seconds)
        if asked.final is None and callee.incoming is None:
            raise SipError(f"the call did not arrive at the other phone within {self.seconds:g} s; {LOG}")
        if asked.final is None:
            callee.answer()
        missing = f"extension {EXTENSION} of context {CONTEXT} is missing from the dialplan"
        hint = missing if asked.final is not None and asked.final.status == 404 else LOG
        milliseconds = self._finish(phones, asked, "INVITE", hint)
        if not wait(phones, lambda: callee.call is not None and callee.call.confirmed, self.seconds):
            raise SipError("the exchange connected the caller but not the other phone; " + LOG)
        return milliseconds

    def _talk(self, caller, callee):
        """Send RTP both ways; returns the counts."""
        phones, frames = (caller, callee), max(1, int(round(self.talk / FRAME_SECONDS)))
        streams = [phone.stream for phone in phones]
        for phone, other in ((caller, callee), (callee, caller)):
            phone.stream.start((self.server[0], phone.call.audio_port), frames, other.stream.mark)

        def over():
            received = all(len(stream.received) == frames for stream in streams)
            return received or any(phone.call.ended for phone in phones)

        wait(list(phones) + streams, over, frames * FRAME_SECONDS + 0.5)
        if any(phone.call.ended for phone in phones):
            raise SipError("the exchange ended the call early; " + LOG)
        for phone, stream in zip(("caller", "called phone"), streams):
            if len(stream.received) < ENOUGH * frames:
                raise SipError(
                    f"the {phone} received {len(stream.received)} of the {frames} RTP frames sent to it (and "
                    f"{stream.echoes} of its own, {stream.strangers} of neither phone); is a firewall between the "
                    "exchange and itself, or are its RTP ports taken?"
                )
        received = [len(stream.received) for stream in streams]
        return {"sent": frames, "caller_received": received[0], "callee_received": received[1]}

    def _give_up(self, phones, invite):
        """End a call that is not over: BYE or CANCEL, and time for the other phone's part to end."""
        caller = phones[0]
        if not caller.call.ended:
            caller.hang_up() if caller.call.answered else caller.cancel(invite)
            wait(phones, lambda: all(phone.call is None or phone.call.ended for phone in phones), 2)

    def _finish(self, phones, asked, what, hint=LOG):
        """Wait for the 2xx that answers a request; returns the milliseconds it took."""
        if not wait(phones, lambda: asked.final, self.seconds):
            raise SipError(f"the exchange did not answer the {what} within {self.seconds:g} s; {hint}")
        if asked.final.status >= 300:
            raise SipError(f"the exchange answered the {what} with {asked.final.reason}; {hint}")
        return round(asked.seconds * 1000, 1)

    def _record(self, elapsed):
        """The one record of the call, once Asterisk has written it; elapsed is the length of the call in seconds."""
        deadline = time.monotonic() + self.seconds
        rows: list = []
        while not rows and time.monotonic() < deadline:
            time.sleep(0.1)
            rows = self.records.query("SELECT * FROM {table} WHERE accountcode = %s", self.token)
        if len(rows) != 1:
            raise DatabaseError(
                f"the call went through, but left {len(rows)} records in table {self.records.table} within "
                f"{self.seconds:g} s where 1 is right; {LOG}"
            )
        for column, value in (("src", CALLER_ID), ("dst", EXTENSION), ("disposition", "ANSWERED")):
            if rows[0].get(column) != value:
                raise DatabaseError(f"the call's record has {column} {rows[0][column]!r} where {value!r} is right")
        billed = rows[0]["billsec"]
        if not int(elapsed) <= billed <= elapsed + 1:
            raise DatabaseError(f"the call's record has billsec {billed} where the call took {elapsed:.1f} s")
        return rows[0]

    def _remove_record(self):
        """Delete the call's record; that of a call that failed may be written a moment later."""
        deadline = time.monotonic() + 2
        statement = "DELETE FROM {table} WHERE accountcode = %s RETURNING 1"
        while not self.records.query(statement, self.token) and time.monotonic() < deadline:
            time.sleep(0.1)


def _interrupted(number, _frame):
    """End the call like any failure of it, so that everything is removed."""
    raise SipError(f"interrupted by {signal.Signals(number).name}")


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ari_url": {"required": True},
            "ari_password": {"required": True, "no_log": True},
            "sip_host": {"default": "127.0.0.1"},
            "sip_port": {"type": "int", "default": 5060},
            "talk": {"type": "float", "default": 1.5},
            "timeout": {"type": "float", "default": 10},
            "table": {"default": "cdr"},
            "database": {"type": "dict", "required": True},
            "database_password": {"required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, msg="check mode: no call was placed")
    for number in SIGNALS:
        signal.signal(number, _interrupted)
    result, problem, failures = {}, None, []
    try:
        verification = Verification(module.params)
        try:
            result = verification.run()
        finally:
            failures = verification.clean()
    except PROBLEMS as error:
        problem = str(error)
    if failures:
        problem = f"{problem or 'the call went through'}; what it made was not all removed: {'; '.join(failures)}"
    if problem:
        module.fail_json(msg="verify: " + problem + ("" if problem.endswith("?") else "."))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
