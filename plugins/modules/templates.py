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
  - First the action compares everything by the shell of the host, and starts the module only where something differs.
options:
  source:
    description: Directory of the templates, as M(ansible.builtin.template) finds it; their names end in C(.j2).
    type: str
    default: .
  directory:
    description: Directory on the host that contains the files. One that is missing is created with mode C(0755).
    type: path
    required: true
  files:
    description:
      - The files. Each has C(name), below O(directory), and may have C(validate), a command that must succeed, with
        C(%s) for the new file, C(secret), which keeps its content out of the diff, C(template), the name of the
        template where it is not the file's, and an owner, group and mode of its own. Other keys are returned as they
        are. With C(from), a path of the controller, a file is copied as it is, and of a directory every file below it;
        the diff names them alone. The action adds C(content) or C(base64).
    type: list
    elements: dict
    required: true
  directories:
    description: Directories with C(name), as for O(files), and an owner, group and mode of their own; made if missing.
    type: list
    elements: dict
    default: []
  absent:
    description: Names, as for O(files), of files that are not to be there.
    type: list
    elements: str
    default: []
  purge: {description: Directories below which nothing else stays., type: list, elements: path, default: []}
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
directories: {description: The path of each directory that was missing., returned: success, type: list, elements: str}
paths: {description: The path of each file on the host., returned: success, type: list, elements: str}
"""

import base64
import os
import shlex
import shutil
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


def difference(path, before, after, item):
    """The diff of a file's content; `before` is None for a new file."""
    if item.get("secret"):
        return {"prepared": f"{path} changes; it contains secrets and is not shown.\n"}
    if item.get("from"):
        return {"prepared": f"{path} changes.\n"}
    return {
        "before_header": path,
        "before": (before or b"").decode("utf-8", "replace"),
        "after_header": path,
        "after": after.decode("utf-8"),
    }


def make_directory(path):
    """Create a directory and those above it, which everybody may enter."""
    if not os.path.isdir(path):
        make_directory(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)


def correct_directories(module):
    """Make the directories and give each its owner, group and mode.

    Returns the paths of those that were missing, and the diffs.
    """
    missing, diffs = [], []
    for item in module.params["directories"]:
        path = os.path.normpath(os.path.join(module.params["directory"], item["name"]))
        attributes: dict = {}
        if not os.path.isdir(path):
            missing.append(path)
            diffs.append({"prepared": f"{path} is created.\n"})
            if module.check_mode:
                continue
            make_directory(path)
        common = module.load_file_common_arguments({**module.params, **attributes_of(item)}, path=path)
        if module.set_fs_attributes_if_different(common, False, diff=attributes) and path not in missing:
            diffs.append(dict(attributes, before_header=path, after_header=path))
    return missing, diffs


def others(directory, paths):
    """What is below a directory and neither one of the paths nor a directory that leads to one."""
    kept, found = set(paths), []
    for path in paths:
        while len(path) > len(directory):
            path = os.path.dirname(path)
            kept.add(path)
    for above, directories, files in os.walk(directory):
        found += [path for path in (os.path.join(above, name) for name in files + directories) if path not in kept]
        directories[:] = [name for name in directories if os.path.join(above, name) in kept]
    return sorted(found)


def attributes_of(item):
    """The owner, group and mode that a file has of its own."""
    return {name: item[name] for name in ("owner", "group", "mode") if name in item}


def main():
    """Find the files that differ, validate all of them, then replace them."""
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "default": "."},
            "directory": {"type": "path", "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "directories": {"type": "list", "elements": "dict", "default": []},
            "absent": {"type": "list", "elements": "str", "default": []},
            "purge": {"type": "list", "elements": "path", "default": []},
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
        path = os.path.normpath(os.path.join(module.params["directory"], item["name"]))
        content = base64.b64decode(item.pop("base64")) if "base64" in item else item.pop("content").encode("utf-8")
        try:
            before = read(path)
        except OSError as error:
            module.fail_json(msg=f"{path} cannot be read ({error.strerror}), and nothing was changed.")
        wanted.append((path, before, content, item))
        if before != content and not module.check_mode:
            staged[path] = stage(module, path, content, item.get("validate"))
    files = []
    missing, diffs = correct_directories(module)
    made = bool(diffs)
    for path, before, content, item in wanted:
        changed = before != content
        attributes: dict = {}
        if changed:
            diffs.append(difference(path, before, content, item))
        if path in staged:
            make_directory(os.path.dirname(path))
            module.atomic_move(staged[path], path)
        if before is not None or not module.check_mode:
            common = module.load_file_common_arguments({**module.params, **attributes_of(item)}, path=path)
            changed = module.set_fs_attributes_if_different(common, changed, diff=attributes)
        if before is not None and attributes.get("before") != attributes.get("after"):
            diffs.append(dict(attributes, before_header=path, after_header=path))
        if changed:
            files.append(item)
    absent = [os.path.join(module.params["directory"], name) for name in module.params["absent"]]
    extra = [path for path in absent if os.path.lexists(path)]
    extra += [path for directory in module.params["purge"] for path in others(directory, [path for path, *_ in wanted])]
    for path in extra:
        diffs.append({"prepared": f"{path} is removed.\n"})
        if not module.check_mode:
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
    module.exit_json(
        changed=bool(made or files or extra),
        files=files,
        directories=missing,
        paths=[path for path, *_ in wanted],
        diff=diffs,
        invocation={},
    )


if __name__ == "__main__":
    main()
