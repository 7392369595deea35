"""The package: kept only when it is complete, and built by another host when the builder fails."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import rendering
import yaml
from package_role import CONTENT, FACTS, SHA256, Controller, release, role

# A host whose variable `build` is not 0 fails in the middle of its build.
SCRIPT = 'mkdir -p "$work"; echo a package > "$package"; echo "exit $build" > "$work/progress.sh"'
BUILD = [
    {
        "ansible.builtin.shell": SCRIPT,
        "environment": {
            "work": "{{ __asterisk_package_work }}",
            "package": "{{ __asterisk_package_built }}",
            "build": "{{ build | default(0) }}",
        },
    },
    {"ansible.builtin.set_fact": {"__asterisk_package_started": True}},
]


@pytest.fixture(name="run")
def fixture_run(tmp_path):
    """A function that runs tasks on a controller that keeps no package, by role `copy`, in which BUILD is the build."""
    shutil.copytree(rendering.ROLES / "asterisk_package", tmp_path / "roles/copy")
    (tmp_path / "roles/copy/tasks/start.yml").write_text(yaml.safe_dump(BUILD))
    (tmp_path / "cache/packages").mkdir(parents=True)
    controller = Controller(tmp_path)

    def run(tasks, hosts, *before):
        return controller.run(
            [FACTS, *tasks],
            hosts,
            *before,
            asterisk_package_extra_releases={"1.0": release()},
            asterisk_package_build_directory=str(tmp_path) + "/build-{{ inventory_hostname }}",
        )

    return run


def test_package_that_is_cut_short_is_built_again(run, tmp_path):
    fetch, find = role("start.yml", "fetch.yml", name="copy"), role("locate.yml", name="copy")
    kept, missing = (
        [*find, {"ansible.builtin.assert": {"that": f"__asterisk_package_kept == {wanted}"}}]
        for wanted in (True, False)
    )
    cut = {"ansible.builtin.shell": "printf 'a pack' > {{ asterisk_package_deb }}"}
    without_checksum = {"ansible.builtin.shell": "rm {{ asterisk_package_deb }}.sha256"}
    tasks = [*missing, *fetch, *kept, cut, *missing, without_checksum, *missing, *fetch, *kept]
    code, output = run(tasks, {"pbx1": {}})
    assert code == 0, output
    (package,) = (tmp_path / "cache/packages").glob("*.deb")
    assert package.read_text() == "a package\n" and package.stat().st_mode & 0o777 == 0o644
    assert {path.name for path in package.parent.iterdir()} == {package.name, package.name + ".sha256"}


def test_package_is_fetched_again_after_a_full_disk(run, tmp_path):
    """In a mount namespace of its own, where the directory is a tiny file system that is full at first."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, for a mount namespace")
    twice = 'mount -t tmpfs -o size=16k none $0; head -c 16k /dev/zero > $0/full; ! "$@"; ls $0; rm $0/full; exec "$@"'
    space = ["unshare", "--mount", "sh", "-ec", twice, str(tmp_path / "cache/packages")]
    find, fetch = (role(*names, name="copy") for names in (["locate.yml"], ["start.yml", "fetch.yml"]))
    kept = {"ansible.builtin.assert": {"that": "__asterisk_package_kept"}}
    code, output = run([*find, *fetch, *find, kept], {"pbx1": {}}, *space)
    assert re.search(r"could not be copied to the controller \(.*\); free some disk space on the controller", output)
    assert "ignored=0 full PLAY" in output, "a part was left"
    assert code == 0, output


def test_another_host_builds_when_the_builder_fails(run):
    one, other, broken = {"asterisk_package_debug": "-g1"}, {"asterisk_package_debug": "-g3"}, {"build": 1}
    hosts = {
        **{"a1": {**one, **broken}, "a2": one},
        **{"b1": {**other, **broken}, "b2": {**other, **broken}, "b3": other},
        "c1": {"asterisk_package_debug": "-g2"},
    }
    done = {"ansible.builtin.debug": {"msg": "{{ inventory_hostname }} has it: {{ asterisk_package_deb is file }}"}}
    code, output = run([*role("locate.yml", "build_wait.yml", name="copy"), done], hosts)
    assert code != 0
    for host in ("a1", "b1", "b2"):
        assert f"{host}: the build failed: " in output
    assert "b3: its package could not be built on b1 or b2; correct the error reported for these and run" in output
    assert "a2 has it: True" in output and "c1 has it: True" in output


@pytest.mark.parametrize(
    ("beside", "complete"), [(None, True), (SHA256.partition(":")[2], True), ("0" * 64, False), ("", False)]
)
def test_package_with_another_checksum_is_not_installed(tmp_path, beside, complete):
    """One without a checksum is the administrator's own."""
    package = tmp_path / "a.deb"
    package.write_bytes(CONTENT)
    if beside is not None:
        (tmp_path / "a.deb.sha256").write_text(f"{beside}  a.deb\n")
    tasks = rendering.load(rendering.ROLES / "asterisk/tasks/installed.yml")
    (task,) = [task for task in tasks if task["name"] == "Check that the package is on the controller"]
    known = {**task["vars"], "asterisk_deb": str(package)}
    assert rendering.evaluate("{{ " + task["ansible.builtin.assert"]["that"] + " }}", known) is complete
    package.unlink()
    assert rendering.evaluate("{{ " + task["ansible.builtin.assert"]["that"] + " }}", known) is False


@pytest.mark.parametrize(("booted", "code", "failed"), [(True, 1, True), (False, 1, False), (False, 0, False)])
def test_build_without_systemd_ends_with_its_task(booted, code, failed):
    """And why it failed is reported by the task that waits for it."""
    tasks = rendering.load(rendering.ROLES / "asterisk_package/tasks/start.yml")
    block = next(task["block"] for task in tasks if "block" in task)
    (task,) = [task for task in block if task["name"].startswith("Start the build")]
    names = ("__asterisk_package_work", "__asterisk_package_tree", "asterisk_package_version")
    known = {
        **rendering.load(rendering.ROLES / "asterisk_package/vars/main/package.yml"),
        **{name: name for name in names},
        **{"labredes_booted": booted, "asterisk_package_deb": "/cache/a.deb", "__asterisk_package_unit": "unit"},
        "__asterisk_package_started": {"rc": code, "stderr": "no"},
    }
    argv = rendering.evaluate(task["ansible.builtin.command"]["argv"], known)
    build = ["sh", "__asterisk_package_work/build.sh", "__asterisk_package_tree", "a.deb", "asterisk_package_version"]
    assert argv[-5:] == build and argv[0] == ("systemd-run" if booted else "sh")
    assert rendering.evaluate("{{ " + task["failed_when"] + " }}", known) is failed
