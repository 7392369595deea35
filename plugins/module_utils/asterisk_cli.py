# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Asterisk's command line interface (`asterisk -rx`), whose exit code is 0 for most failures. Runs on Python 3.6."""

import subprocess

CURE = "see `systemctl status asterisk` and /var/log/asterisk/messages, and restart it"


class CliError(Exception):
    """What went wrong, as one sentence without its full stop."""


def cli(command, seconds=30):
    """The output of a command of the running Asterisk, waited for no longer than so many seconds; CliError."""
    try:
        done = subprocess.run(
            ["asterisk", "-rx", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CliError(f"Asterisk runs but did not answer `{command}` within {seconds:g} s; {CURE}") from None
    except OSError as problem:
        raise CliError(f"asterisk cannot be started ({problem.strerror}); install it with role asterisk") from None
    if done.returncode or "Unable to connect to remote asterisk" in done.stdout:
        reason = " ".join(done.stdout.split()) or f"exit code {done.returncode}"
        raise CliError(f"Asterisk's control socket does not answer ({reason}); {CURE}")
    return done.stdout


def wait_until_booted(seconds=30):
    """Wait until Asterisk has loaded all its modules; CliError after so many seconds."""
    answer = cli("core waitfullybooted", seconds)
    if "fully booted" not in answer:
        raise CliError(f"Asterisk answers `core waitfullybooted` with {answer.strip()!r}; {CURE}")
