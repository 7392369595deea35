# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Scripts that actions run on a host without a module."""

from __future__ import annotations


def answer_of(action, script):
    """The answer of a host to a script, as a dict of `rc`, `stdout` and `stderr`; the script gets no input.

    It has no terminal, to which programs write otherwise than to a file, and which mixes errors with the output. su
    needs one, to read its password from: there the errors are left out.
    """
    connection = action._connection
    if connection.has_pipelining and getattr(connection.become, "name", "") != "su":
        # With input, ssh creates no terminal.
        return action._low_level_execute_command(f"{{ {script}\n}} </dev/null", in_data=b"\n")
    kept = f"answer=$({{ {script}\n}} </dev/null 2>/dev/null); code=$?; printf '%s\\n' \"$answer\"; exit $code"
    answer = action._low_level_execute_command(kept)
    return {**answer, "stdout": answer["stdout"].replace("\r\n", "\n"), "stderr": ""}
