# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The action labredes.pbx.ssh_proof: see plugins/modules/ssh_proof.py."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import connection_loader
from ansible_collections.labredes.pbx.plugins.plugin_utils.ssh_failure import sentence

# The first value of an option counts for ssh, so these come before the user's own arguments.
FRESH_AND_BY_KEY = ("ControlMaster=no", "ControlPath=none", "BatchMode=yes", "PreferredAuthentications=publickey")


class ActionModule(ActionBase):
    """Runs ssh itself, so that neither an open connection nor a connection plugin's cache can answer for it."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        """Log in once; fails with one sentence when that is refused."""
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        _checked, args = self.validate_argument_spec(
            {"port": {"type": "int", "required": True}, "timeout": {"type": "int", "default": 20}}
        )
        if self._task.check_mode:
            return dict(result, changed=False, skipped=True, msg="Nothing to prove in check mode.")
        command, address, user = self._command(args["port"], args["timeout"], task_vars)
        deadline = time.monotonic() + args["timeout"]
        said = self._log_in(command, args["timeout"])
        # A server that has just been told to listen may need a moment.
        while said is not None and re.search(r"refused|reset by|closed by", said) and time.monotonic() < deadline:
            time.sleep(0.5)
            said = self._log_in(command, args["timeout"])
        if said is not None:
            reason = sentence(said, task_vars["inventory_hostname"], address, args["port"], user, None)
            return dict(result, failed=True, reason=reason, msg=reason)
        return dict(result, changed=False)

    @staticmethod
    def _log_in(command: list[str], timeout: int) -> str | None:
        """Run ssh once: None when the login succeeded, else what was said."""
        try:
            answer = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout + 5,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "timed out"
        return None if answer.returncode == 0 else answer.stdout.decode(errors="replace")

    def _command(self, port: int, timeout: int, task_vars: dict) -> tuple[list[str], str, str | None]:
        """The ssh command for this host's variables, its address and its user."""
        ssh = connection_loader.get("ansible.builtin.ssh", self._play_context, os.devnull)
        names = C.config.get_plugin_vars("connection", ssh._load_name)
        keywords = {key: value for key, value in self._task.dump_attrs().items() if key == "remote_user"}
        ssh.set_options(
            task_keys=keywords,
            var_options={name: self._templar.template(task_vars[name]) for name in names if name in task_vars},
        )
        address, user = ssh.get_option("host") or self._play_context.remote_addr, ssh.get_option("remote_user")
        words = [ssh.get_option("ssh_executable")]
        for option in FRESH_AND_BY_KEY + (f"ConnectTimeout={timeout}", f"Port={port}"):
            words += ["-o", option]
        if user:
            words += ["-o", f"User={user}"]
        key = ssh.get_option("private_key_file")
        if key:
            words += ["-o", f'IdentityFile="{os.path.expanduser(key)}"']
        if ssh.get_option("host_key_checking") is False:
            words += ["-o", "StrictHostKeyChecking=no"]
        for option in ("ssh_args", "ssh_common_args", "ssh_extra_args"):
            words += shlex.split(ssh.get_option(option) or "")
        return words + [address, "true"], address, user
