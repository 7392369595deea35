#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write many files from templates in one go."""

DOCUMENTATION = r"""
module: templates
short_description: Write many files from templates in one go
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Does for a list of files what M(ansible.builtin.template) does for one, in one call on the host. In a loop that
    module costs two calls and a transfer for each file, a third of a second.
  - Every new content is validated before the first file is replaced.
options:
  source:
    description: Directory of the templates, as M(ansible.builtin.template) finds it; each has its file's name and C(.j2).
    type: str
    required: true
  directory:
    description: Directory of the files on the host. It and those that a file's name goes through must be there.
    type: path
    required: true
  files:
    description:
      - The files. Each has C(name) (below O(directory)), and may have C(validate) (a command with C(%s) for the
        file to look at, which has to succeed) and C(secret) (whether its content is kept out of what is shown).
      - Other keys are left to whoever made the list. C(content) is put there by the controller.
    type: list
    elements: dict
    required: true
extends_documentation_fragment: [files]
attributes:
  check_mode:
    support: full
    description: Nothing is written; C(validate) is not run, since its program may be among what is yet to be installed.
  diff_mode:
    support: full
    description: Of a file with a secret it is said that it changes, and not how.
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
  description: Those of the list that changed, in content, owner, group or mode, as they were given.
  returned: success
  type: list
  elements: dict
"""

import os
import shlex
import tempfile

from ansible.module_utils.basic import AnsibleModule


def read(path):
    """The content of a plain file as bytes; None where there is none, or something else that a file would replace."""
    if os.path.islink(path) or not os.path.exists(path):
        return None
    with open(path, "rb") as stream:
        return stream.read()


def stage(module, path, content, validate):
    """Write new content to a temporary file and validate it; gives that file's path. Fails the module in one sentence."""
    handle, staged = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    if validate:
        code, out, complaint = module.run_command([word.replace("%s", staged) for word in shlex.split(validate)])
        if code:
            module.fail_json(
                msg="%s would not be valid, and nothing was changed: %s" % (path, (complaint or out).strip())
            )
    return staged


def difference(path, before, after, secret):
    """What --diff shows of a file's content; `before` and `after` are bytes, `before` None where there was no file."""
    if secret:
        return {"prepared": "%s changes; it holds secrets and is not shown.\n" % path}
    return {
        "before_header": path,
        "before": (before or b"").decode("utf-8", "replace"),
        "after_header": path,
        "after": after.decode("utf-8"),
    }


def main():
    """Find what differs, validate all of it, then replace."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
        },
        add_file_common_args=True,
        supports_check_mode=True,
    )
    # What is written is nobody else's before it has its owner and mode.
    os.umask(0o077)
    wanted, staged = [], {}
    for item in module.params["files"]:
        path, content = os.path.join(module.params["directory"], item["name"]), item.pop("content").encode("utf-8")
        try:
            before = read(path)
        except OSError as error:
            module.fail_json(msg="%s cannot be read (%s), and nothing was changed." % (path, error.strerror))
        wanted.append((path, before, content, item))
        if before != content and not module.check_mode:
            staged[path] = stage(module, path, content, item.get("validate"))
    files, diffs = [], []
    for path, before, content, item in wanted:
        changed, attributes = before != content, {}
        if changed:
            diffs.append(difference(path, before, content, item.get("secret")))
        if path in staged:
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
