#!/usr/bin/python
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Documentation of the controller action labredes.pbx.sources."""

DOCUMENTATION = r"""
module: sources
short_description: Fetch verified sources into the controller's cache
version_added: 0.1.0
author: labredes.pbx contributors (@labredes)
description:
  - Runs on the controller and touches no host. Every source is verified each time it is asked for.
  - An address that does not answer is tried again; a mirror is asked before upstream.
options:
  sources:
    description:
      - The sources. A file has C(name), C(urls) and C(checksums) (V(algorithm:hex), all must hold;
        with none, the digest that upstream serves beside the file); a git tree has C(name), C(git),
        C(commit) and C(ref).
    type: list
    elements: dict
    required: true
  cache:
    description: Directory of the cache.
    type: path
    required: true
  mirror:
    description: Directory or address that is asked first.
    type: str
  bundle:
    description: Path of a tar to write, with every source under its name.
    type: path
"""

EXAMPLES = r"""
- name: Fetch the sources
  labredes.pbx.sources:
    cache: ~/.cache/labredes.pbx
    sources:
      - name: asterisk-moh-opsound-wav-2.03.tar.gz
        urls: [https://downloads.asterisk.org/pub/telephony/sounds/releases/asterisk-moh-opsound-wav-2.03.tar.gz]
        checksums: ["sha256:449fb810d16502c3052fedf02f7e77b36206ac5a145f3dacf4177843a2fcb538"]
"""

RETURN = r"""
files:
  description: The path of each source, by name.
  returned: success
  type: dict
verified:
  description: How each source was verified, by name.
  returned: success
  type: dict
fetched:
  description: Names of the sources that were not in the cache.
  returned: success
  type: list
"""
