# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asterisk's command line interface (`asterisk -rx`), whose exit code is 0 for most failures. Runs on Python 3.6."""

from subprocess import DEVNULL, PIPE, STDOUT, Popen, TimeoutExpired, run

ASTERISK = "/usr/sbin/asterisk"
CURE = "restart it by `systemctl restart asterisk`, and see `journalctl -u asterisk`"


class AsteriskError(Exception):
    """What went wrong, as one sentence without its full stop."""


def cli(command, seconds=30):
    """The output of a command of the running Asterisk, waited for no longer than so many seconds; AsteriskError."""
    try:
        done = run([ASTERISK, "-rx", command], stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, timeout=seconds, check=False)
    except TimeoutExpired:
        raise AsteriskError(f"Asterisk did not answer on its control socket within {seconds:g} s; {CURE}") from None
    output = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise AsteriskError(f"Asterisk does not run or refuses its control socket ({' '.join(output.split())}); {CURE}")
    return output


def begin(command):
    """The process of a command that answers later."""
    return Popen([ASTERISK, "-rx", command], stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)


def calls(seconds=10):
    """The calls in progress, each as who takes part and for how long, such as `6001 with 6002 for 75 s`."""
    found = {}  # type: dict
    shown = cli("core show channels concise", seconds)
    # Asterisk refuses to show them then, also while a call holds the shutdown up.
    if "cannot be run during shutdown" in shown:
        raise AsteriskError(
            "Asterisk shuts down when its calls have ended, and takes no new ones; `asterisk -rx 'core abort shutdown'`"
            " has it go on"
        )
    for line in shown.splitlines():
        if line.count("!") < 13:
            continue
        channel, duration, bridge, identity = line.rsplit("!", 3)
        # A channel is called after its technology and its endpoint, as PJSIP/6001-00000003.
        who = channel.partition("!")[0].partition("/")[2].rpartition("-")[0]
        found.setdefault(bridge or identity, []).append((who, int(duration or 0), channel.startswith("Local/")))
    answer = []
    for members in found.values():
        people = sorted({who for who, _time, local in members if not local}) or sorted({who for who, _t, _l in members})
        answer.append(f"{' with '.join(people)} for {max(time for _who, time, _local in members)} s")
    return sorted(answer)


def in_progress(talking):
    """The sentence that says who talks, without its full stop; at most ten calls."""
    more = f" and {len(talking) - 10} more" if len(talking) > 10 else ""
    count = "1 call is" if len(talking) == 1 else f"{len(talking)} calls are"
    return f"{count} in progress ({', '.join(talking[:10])}{more})"
