# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action of labredes.pbx.templates, which renders all files before its one call on the host; see the module."""

from __future__ import annotations

import base64
from pathlib import Path

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader


def copies(item):
    """Entries for a file of the controller, or for every file below a directory but Python's caches (OSError)."""
    source, name = Path(item["from"]), item["name"]
    found = {name: source}
    if source.is_dir():
        found = {f"{name}/{path.relative_to(source).as_posix()}": path for path in source.rglob("*") if path.is_file()}
    return [
        {**item, "name": path, "base64": base64.b64encode(found[path].read_bytes()).decode()}
        for path in sorted(found)
        if "__pycache__" not in path.split("/")
    ]


class ActionModule(ActionBase):
    """Renders every template on the controller and passes all of them to the module."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        """The module's result; a template that cannot be rendered fails before the host is changed."""
        result = super().run(tmp, task_vars)
        lookup = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)
        # Only up to ansible-core 2.18 text that looks like a list would become one.
        options = {} if hasattr(self._templar, "evaluate_expression") else {"convert_data": False}
        files = []
        for item in self._task.args["files"]:
            if "from" in item:
                try:
                    files += copies(item)
                except OSError as error:
                    return {**result, "failed": True, "msg": f"{error.filename}: {error.strerror}"}
                continue
            template = f"{self._task.args.get('source', '.')}/{item['name']}.j2"
            try:
                [content] = lookup.run([template], task_vars, **options)
            except AnsibleError as error:
                return {**result, "failed": True, "msg": f"{template}: {error}"}
            files.append({**item, "content": content})
        # Keeps the contents, which include secrets, out of the host's journal, where modules log their parameters.
        return {
            **result,
            **self._execute_module(
                module_name="labredes.pbx.templates",
                task_vars={**task_vars, "ansible_no_target_syslog": True},
                module_args={**self._task.args, "files": files},
            ),
        }
