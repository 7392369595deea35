#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module labredes.pbx.exchange_backup: see DOCUMENTATION."""

DOCUMENTATION = r"""
module: exchange_backup
short_description: Write the data of a running exchange to one tar file
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Writes the files below some directories, some single files, and consistent copies of Asterisk's database and of the
    journal of call records to C(exchange.tar). Asterisk goes on, and waits for nothing.
  - A message that is moved from one folder of its mailbox to another meanwhile is in the file once.
options:
  directory:
    description: Directory for C(exchange.tar), which then belongs to the directory's owner.
    type: path
    required: true
  trees:
    description: The directories by their names in the file. Of C(voicemail) each mailbox is read at one moment.
    type: dict
    required: true
  files: {description: The single files by their names., type: dict, default: {}}
  astdb: {description: Asterisk's database., type: path, required: true}
  journal: {description: The journal of call records., type: path, required: true}
  package: {description: "Debian package whose files are left out, such as Asterisk's prompts.", type: str, default: ""}
attributes:
  check_mode: {support: full, description: Writes nothing and reports a change.}
"""

EXAMPLES = r"""
- name: Collect the data
  labredes.pbx.exchange_backup:
    directory: /var/tmp/backup
    trees: {voicemail: /var/spool/asterisk/voicemail}
    astdb: /var/lib/asterisk/astdb.sqlite3
    journal: /var/lib/labredes-cdr/journal.db
"""

RETURN = r"""
counts:
  description:
    - C(messages) by mailbox, and the numbers of C(greetings), C(pins), C(forwards), values of the database (C(values)),
      C(waiting) and C(rejected) records, and files by the name of their directory.
  returned: success
  type: dict
package_version: {description: The installed version of the package., returned: success, type: str}
"""

import os
import sqlite3

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.labredes.pbx.plugins.module_utils.exchange_archive import write
from ansible_collections.labredes.pbx.plugins.module_utils.exchange_data import DataError


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "trees": {"type": "dict", "required": True},
            "files": {"type": "dict", "default": {}},
            "astdb": {"type": "path", "required": True},
            "journal": {"type": "path", "required": True},
            "package": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, counts={}, package_version="")
    directory = module.params["directory"]
    path = os.path.join(directory, "exchange.tar")
    os.umask(0o077)
    try:
        counts = write(path, module.params)
        owner = os.stat(directory)
        os.chown(path, owner.st_uid, owner.st_gid)
    except (DataError, OSError, sqlite3.Error) as problem:
        module.fail_json(msg=f"The data of the exchange cannot be read: {str(problem).rstrip('.')}.")
    shown = ["dpkg-query", "--show", "--showformat=${Version}", module.params["package"]]
    version = module.run_command(shown)[1] if module.params["package"] else ""
    module.exit_json(changed=True, counts=counts, package_version=version)


if __name__ == "__main__":
    main()
