#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write many files in one call: thirty files by ansible.builtin.template take ten seconds, by this module one."""

DOCUMENTATION = r"""
module: templates
short_description: Write many files from templates in one call
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Does for a list of files what M(ansible.builtin.template) does for one, which in a loop costs two calls and a
    transfer for each file. All new contents are validated before the first file is replaced.
options:
  source:
    description: Directory of the templates, as M(ansible.builtin.template) finds it; their names end in C(.j2).
    type: str
    required: true
  directory:
    description: Directory on the host that contains the files. One that is missing is created with mode C(0755).
    type: path
    required: true
  files:
    description:
      - The files. Each has C(name), below O(directory), and may have C(validate), a command that must succeed, with
        C(%s) for the new file, and C(secret), which keeps its content out of the diff. Other keys are returned as
        they are. The action adds C(content).
    type: list
    elements: dict
    required: true
extends_documentation_fragment: [files]
attributes:
  check_mode:
    support: full
    description: Nothing is written. C(validate) is not run, since its program may not be installed yet.
  diff_mode:
    support: full
    description: For a file with C(secret) the diff only reports that it changes.
"""

EXAMPLES = r"""
- name: Write the engine's files
  labredes.pbx.templates:
    source: etc/asterisk
    directory: /etc/asterisk
    owner: root
    group: asterisk
    mode: "0640"
    files:
      - {name: rtp.conf}
      - {name: manager.conf, secret: true}
      - {name: extensions.lua, validate: luac5.2 -p %s}
  register: written
"""

RETURN = r"""
files:
  description: The entries of O(files) whose content, owner, group or mode changed.
  returned: success
  type: list
  elements: dict
"""

import os
import shlex
import tempfile

from ansible.module_utils.basic import AnsibleModule


def read(path):
    """The content of a regular file as bytes; None for a missing file or a link, which is replaced."""
    if os.path.islink(path) or not os.path.exists(path):
        return None
    with open(path, "rb") as stream:
        return stream.read()


def stage(module, path, content, validate):
    """Write new content to a temporary file, validate it, and return its path."""
    handle, staged = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    if validate:
        code, out, complaint = module.run_command([word.replace("%s", staged) for word in shlex.split(validate)])
        if code:
            module.fail_json(msg=f"{path} would not be valid, and nothing was changed: {(complaint or out).strip()}")
    return staged


def difference(path, before, after, secret):
    """The diff of a file's content; `before` is None for a new file."""
    if secret:
        return {"prepared": f"{path} changes; it contains secrets and is not shown.\n"}
    return {
        "before_header": path,
        "before": (before or b"").decode("utf-8", "replace"),
        "after_header": path,
        "after": after.decode("utf-8"),
    }


def main():
    """Find the files that differ, validate all of them, then replace them."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    # No other user can read a file before it has its owner and mode.
    os.umask(0o077)
    # Every result carries the parameters as `invocation`, a failure's too; the contents are not to be among them.
    given = module.params.pop("files")
    wanted, staged = [], {}
    for item in given:
        path, content = os.path.join(module.params["directory"], item["name"]), item.pop("content").encode("utf-8")
        try:
            before = read(path)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be read ({error.strerror}), and nothing was changed.")
        wanted.append((path, before, content, item))
        if before != content and not module.check_mode:
            staged[path] = stage(module, path, content, item.get("validate"))
    files, diffs = [], []
    for path, before, content, item in wanted:
        changed = before != content
        attributes: dict = {}
        if changed:
            diffs.append(difference(path, before, content, item.get("secret")))
        if path in staged:
            if not os.path.isdir(os.path.dirname(path)):
                os.makedirs(os.path.dirname(path))
                os.chmod(os.path.dirname(path), 0o755)
            module.atomic_move(staged[path], path)
        if before is not None or not module.check_mode:
            common = module.load_file_common_arguments(module.params, path=path)
            changed = module.set_fs_attributes_if_different(common, changed, diff=attributes)
        if before is not None and attributes.get("before") != attributes.get("after"):
            diffs.append(dict(attributes, before_header=path, after_header=path))
        if changed:
            files.append(item)
    module.exit_json(changed=bool(files), files=files, diff=diffs, invocation={})


if __name__ == "__main__":
    main()
