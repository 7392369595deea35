"""The role's downloads: made once, verified, tried again, a mirror first; and what is reported when one fails."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time

import pytest
from package_role import CONTENT, FACTS, SHA256, Controller, Upstream, end, release, role

FILES = role("cache.yml", "files.yml")


@pytest.fixture(name="upstream")
def fixture_upstream():
    """A server of this test's own."""
    upstream = Upstream()
    yield upstream
    upstream.server.shutdown()
    upstream.server.server_close()


@pytest.fixture(name="controller")
def fixture_controller(tmp_path):
    """A controller with an empty cache and a mirror that has pjproject and nothing else."""
    return Controller(tmp_path)


def test_two_builders_download_at_the_same_time(controller, upstream):
    # A first answer that fails is followed by another request; what the mirror lacks comes from upstream.
    upstream.answers = {"/a.tar.gz": [503, CONTENT]}
    variables = {"asterisk_package_extra_releases": {"1.0": release(f"{upstream.url}/a.tar.gz")}}
    code, output = controller.run(FILES, {"b1": {}, "b2": {}}, **variables)
    assert code == 0, output
    assert controller.downloads() == {"a.tar.gz": CONTENT, "pjproject-1.tar.bz2": CONTENT}
    assert upstream.requests == ["/a.tar.gz"] * 2
    # What is in the cache is verified again, and only what is wrong is downloaded again.
    (controller.cache / "downloads/a.tar.gz").write_bytes(CONTENT[:-1])
    code, output = controller.run(FILES, {"b1": {}}, **variables)
    assert code == 0 and controller.downloads()["a.tar.gz"] == CONTENT, output
    assert upstream.requests == ["/a.tar.gz"] * 3


def test_two_runs_download_each_file_once(controller, upstream, repository):
    place, commit = repository
    entry = {**release(), "commit": commit, "pjproject": {"version": "2", "checksums": [SHA256]}}
    del entry["archive"]
    slow = [lambda stream: (time.sleep(1), stream.write(CONTENT))]
    upstream.answers = {"/pjproject-2.tar.bz2": slow}
    variables = {
        "asterisk_package_extra_releases": {"1.0": entry},
        "asterisk_package_mirror": upstream.url,
        "asterisk_package_git_url": str(place),
    }
    runs = [end(run) for run in [controller.start(FILES, {"pbx1": {}}, **variables) for _ in range(2)]]
    assert [code for code, _output in runs] == [0, 0], runs
    assert upstream.requests == ["/pjproject-2.tar.bz2"]
    assert sorted(controller.downloads()) == [f"asterisk-1.0-{commit[:12]}.tar.gz", "pjproject-2.tar.bz2"]


def test_run_after_a_killed_one_completes(controller, upstream, repository):
    place, commit = repository
    entry = {**release(), "commit": commit, "pjproject": {"version": "2", "checksums": [SHA256]}}
    del entry["archive"]
    upstream.answers = {
        "/pjproject-2.tar.bz2": [lambda stream: (stream.write(CONTENT[:-1]), stream.flush(), time.sleep(20)), CONTENT],
        "/tree/info/refs?service=git-upload-pack": [lambda _stream: time.sleep(20)],
    }
    variables = {"asterisk_package_extra_releases": {"1.0": entry}, "asterisk_package_mirror": upstream.url}
    for requested, git in (("/tree/info", f"{upstream.url}/tree"), ("/pjproject", str(place))):
        run = controller.start(FILES, {"b1": {}}, **variables, asterisk_package_git_url=git)
        until(lambda wanted=requested: any(path.startswith(wanted) for path in upstream.requests))
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait(10) == -signal.SIGKILL
    code, output = controller.run(FILES, {"b1": {}}, **variables, asterisk_package_git_url=str(place))
    assert code == 0, output
    found = controller.downloads()
    assert found["pjproject-2.tar.bz2"] == CONTENT and f"asterisk-1.0-{commit[:12]}.tar.gz" in found


def until(condition) -> None:
    """Wait until a condition holds."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("content", "checksums", "reason"),
    [
        (b"something else", [SHA256], "The checksum for .* did not match"),
        (CONTENT, [SHA256, "md5:" + "0" * 32], "wrong checksum"),
        (404, [SHA256], "Request failed"),
    ],
)
def test_file_that_cannot_be_verified_stops_all_hosts(controller, upstream, content, checksums, reason):
    upstream.answers = {"/a.tar.gz": [content]}
    address = f"{upstream.url}/a.tar.gz"
    entry = release(address, checksums=checksums)
    tasks = [FACTS, *role("download.yml")]
    code, output = controller.run(tasks, {"b1": {}, "b2": {}}, asterisk_package_extra_releases={"1.0": entry})
    assert code != 0
    sentence = re.search(r"b1: a\.tar\.gz could not be downloaded from file:\S+ or (\S+) \((.*)\); allow", output)
    assert sentence and sentence[1] == address and re.search(reason, sentence[2]), output
    # Nothing is changed on the other hosts, which would fail later.
    others = "b2: the files of its package could not be prepared; correct the error reported for b1 and run again."
    assert others in output


@pytest.fixture(name="repository")
def fixture_repository(tmp_path):
    """A git repository with tag 1.0; gives its path and the tag's commit."""
    place = tmp_path / "asterisk"
    git = ["git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    (place / "configure").write_text("x")
    for words in (["add", "."], ["commit", "-q", "-m", "a"], ["tag", "-a", "-m", "a", "1.0"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    return place, commit


@pytest.mark.parametrize("wrong", [False, True])
def test_tree_comes_from_the_pinned_commit_alone(controller, repository, wrong):
    place, commit = repository
    entry = release()
    del entry["archive"]
    entry["commit"] = "0" * 40 if wrong else commit
    tree = controller.cache / f"downloads/asterisk-1.0-{commit[:12]}.tar.gz"
    tree.parent.mkdir(parents=True)
    tree.write_bytes(b"cut short")
    code, output = controller.run(
        FILES, {"b1": {}}, asterisk_package_git_url=f"file://{place}", asterisk_package_extra_releases={"1.0": entry}
    )
    if wrong:
        assert code != 0 and f"(the tag is commit {commit} instead of {'0' * 40}); allow" in output, output
        assert set(controller.downloads()) == {tree.name}
    else:
        assert code == 0, output
        assert set(controller.downloads()) == {tree.name, "pjproject-1.tar.bz2"}
        listed = subprocess.run(["tar", "-tzf", tree], check=True, capture_output=True, text=True).stdout.split()
        assert listed == ["asterisk-1.0/", "asterisk-1.0/configure"]


def test_lack_of_disk_space_is_one_sentence(controller):
    tasks = role("cache.yml", __asterisk_package_cache_mb=10**9)
    code, output = controller.run(tasks, {"b1": {}})
    assert code != 0 and re.search(
        rf"b1: {controller.cache} has \d+ MB free for sources and packages; free some disk space on the controller, or",
        output,
    )


def test_download_to_a_full_disk_can_be_repeated(controller):
    """In a mount namespace of its own, where the cache is a tiny file system that then grows."""
    large = CONTENT * 100
    checksum = "sha256:" + hashlib.sha256(large).hexdigest()
    (controller.mirror / "a.tar.gz").write_bytes(large)
    twice = 'mkdir -p $0; mount -t tmpfs -o size=64k none $0; ! "$@"; mount -o remount,size=9m $0; exec "$@"'
    space = ["unshare", "--mount", "sh", "-ec", twice, str(controller.cache)]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, for a mount namespace")
    code, output = controller.run(
        role("cache.yml", "files.yml", __asterisk_package_cache_mb=0),
        {"b1": {}},
        *space,
        asterisk_package_extra_releases={"1.0": release(checksums=[checksum])},
    )
    assert re.search(
        r"b1: a\.tar\.gz could not be .*(No space left on device|failed to copy).*; free some disk space on the", output
    )
    assert code == 0 and re.search(r"b1 : ok=\d+ .*failed=1 .*b1 : ok=\d+ .*failed=0", output), output
