"""The check of a host's disk space, with a df that stands for its file systems."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "roles/system/files/disk_space.sh"
DF = """#!/bin/sh
case $3 in /usr) mounted={usr} free={root_free} ;; *) mounted={var} free={var_free} ;; esac
echo Filesystem 1048576-blocks Used Available Capacity Mounted on
echo /dev/vda1 9999 1 $free 1% $mounted
"""


@pytest.mark.parametrize(
    ("usr", "root_free", "var", "var_free", "expected"),
    [
        ("/", 1000, "/", 1000, ""),
        ("/", 999, "/", 999, "/ has 999 MB free, and what is installed in /usr and /var needs 1000 MB\n"),
        ("/", 500, "/var", 500, ""),
        ("/", 9000, "/var", 499, "/var has 499 MB free, and what is installed in /var needs 500 MB\n"),
        ("/usr", 80, "/var", 500, "/usr has 80 MB free, and what is installed in /usr needs 500 MB\n"),
    ],
)
def test_directories_of_one_file_system_share_its_space(tmp_path, usr, root_free, var, var_free, expected):
    program = tmp_path / "df"
    program.write_text(DF.format(usr=usr, root_free=root_free, var=var, var_free=var_free))
    program.chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPT, "/usr=500", "/var=500"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == expected
