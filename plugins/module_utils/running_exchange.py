# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Asterisk runs, read by its CLI and by ARI, and how that differs from a description.

Both have the form {kind: {name: {setting: value}}}. Runs on Python 3.6 and later.
"""

import re

from ansible_collections.labredes.pbx.plugins.module_utils.asterisk_cli import cli

QUEUE = r"^(?P<name>\S+) +has \d+ calls .* in '(?P<strategy>\w+)' strategy"
MEMBER = r"^ {6}(?:(?P<membername>.*) \()?(?P<name>[^\s()/]+/[^\s()]+)(?!.*\(dynamic\))"  # not who joined by phone
MAILBOX = r"^(?P<context>\S+) +(?P<name>\S+) +(?P<fullname>.*?) +(?P<tz>exchange|) +\d+$"
CONTEXT = r"^\[ Context '(.+?)' created by"
# Kind, command of the CLI, pattern of a line with an object, whose other groups are settings; and, where the kind has
# braces, pattern of a heading whose first group belongs there.
LISTS = (
    ("endpoint", "pjsip list endpoints", r"^ *Endpoint: +(?P<name>[^\s/<]+)", None),
    ("auth", "pjsip list auths", r"Auth: +(?P<name>[^\s/<]+)", None),
    ("aor", "pjsip list aors", r"^ *Aor: +(?P<name>[^\s<]+)", None),
    ("transport", "pjsip list transports", r"^ *Transport: +(?P<name>[^\s<]+)", None),
    ("context {}, extension", "dialplan show", r"^  '(?P<name>.+?)' ", CONTEXT),
    ("context {}, include", "dialplan show", r"^  Include => +'(?P<name>.+?)'", CONTEXT),
    ("queue", "queue show", QUEUE, None),
    ("queue {}, member", "queue show", MEMBER, QUEUE),
    ("agent", "agent show all", r"^(?P<name>\d+) ", None),
    ("mailbox", "voicemail show users", MAILBOX, None),
    ("record of channel events by", "cel show status", r"^CEL Event Subscriber: (?P<name>CEL sqlite3 .+)$", None),
    ("conference bridge", "confbridge show profile bridges", r"^(?P<name>exchange_\S+)$", None),
    ("conference user", "confbridge show profile users", r"^(?P<name>exchange_\S+)$", None),
)
OBJECTS = ("endpoint", "auth", "aor", "transport")  # whose settings ARI shows


def parse(text, item, heading=None):
    """{heading: {name: settings}} of a list; without a heading the only key is ""."""
    found: dict = {"": {}}
    current = ""
    for line in text.splitlines():
        match = re.search(heading, line) if heading else None
        current = match.group(1) if match else current
        match = re.search(item, line)
        if match:
            settings = match.groupdict()
            found.setdefault(current, {})[settings.pop("name")] = settings
    return found


def running(described, ari, seconds):
    """What runs, with the settings of those objects that are described; each question may take so many seconds."""
    found, texts = {}, {}
    for kind, command, item, heading in LISTS:
        if command not in texts:
            texts[command] = cli(command, seconds)
        for name, objects in parse(texts[command], item, heading).items():
            found[kind.format(name)] = objects
    for kind in OBJECTS:
        for name in set(found[kind]) & set(described.get(kind) or {}):
            found[kind][name] = ari.object("GET", kind, name) or {}
    return found


def differences(described, found):
    """One sentence, without its full stop, for each difference; objects of a kind that is not described may be any."""
    sentences = []
    for kind, wanted in described.items():
        wanted, there = wanted or {}, found.get(kind, {})
        for name in sorted(set(wanted) - set(there)):
            sentences.append(f"{kind} {name} is missing")
        for name in sorted(set(there) - set(wanted)):
            if not name.startswith("verify"):  # as the verification's own objects do
                sentences.append(f"{kind} {name} is not described")
        for name in sorted(set(there) & set(wanted)):
            for setting, value in sorted((wanted[name] or {}).items()):
                other = there[name].get(setting)
                other = {"true": "yes", "false": "no"}.get(other, other)
                if other != value and setting == "password":
                    sentences.append(f"{kind} {name} has another password than the one described")
                elif other != value:
                    sentences.append(f"{kind} {name} has {setting} {other!r} where {value!r} is described")
    return sentences
