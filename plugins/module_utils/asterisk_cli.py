# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asterisk's command line interface (`asterisk -rx`), whose exit code is 0 for most failures. Runs on Python 3.6."""

from subprocess import DEVNULL, PIPE, STDOUT, TimeoutExpired, run

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
