# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of labredes.pbx.sources; its documentation is in plugins/modules/sources.py."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.labredes.pbx.plugins.plugin_utils.source_cache import SourceCache, SourceError

display = Display()


class ActionModule(ActionBase):
    """Verify every source in the cache, fetching what is missing, and bundle them for a builder."""

    TRANSFERS_FILES = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {
                "sources": {"type": "list", "elements": "dict", "required": True},
                "cache": {"type": "path", "required": True},
                "mirror": {"type": "str"},
                "bundle": {"type": "path"},
            }
        )
        cache = SourceCache(
            Path(arguments["cache"]) / "sources", arguments["mirror"], say=lambda line: display.display(f"    {line}")
        )
        files, verified, fetched = {}, {}, []
        try:
            for source in arguments["sources"]:
                path, how, new = cache.get(source)
                files[source["name"]] = str(path)
                verified[source["name"]] = how
                if new:
                    fetched.append(source["name"])
            if arguments["bundle"]:
                write_bundle(arguments["bundle"], files)
        except (SourceError, OSError) as error:
            return {**result, "failed": True, "msg": str(error)}
        # The cache is the controller's own: filling it changes no host.
        return {**result, "changed": False, "files": files, "verified": verified, "fetched": fetched}


def write_bundle(path, files):
    """Write one tar of the verified files under their names, whole or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path + ".part", "w") as archive:
        for name, source in sorted(files.items()):
            archive.add(source, arcname=name)
    os.replace(path + ".part", path)
