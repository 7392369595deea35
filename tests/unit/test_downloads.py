"""The role's downloads: verified, tried again, a mirror first; and what is reported when a file cannot be had."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import rendering

CONTENT = b"a file\n" * 1000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role:
        name: labredes.pbx.asterisk_package
        tasks_from: files.yml
"""


class Upstream:
    """An HTTP server on this machine; `answers` maps a path to contents or status codes, given in turn."""

    def __init__(self):
        self.answers, self.requests = {}, []
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Gives the answers."""

            def do_GET(self):
                upstream.requests.append(self.path)
                turns = upstream.answers.get(self.path, [404])
                answer = turns.pop(0) if len(turns) > 1 else turns[0]
                self.send_response(answer if isinstance(answer, int) else 200)
                self.end_headers()
                if isinstance(answer, bytes):
                    self.wfile.write(answer)

            def log_message(self, *_words):
                """Log nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture(name="upstream")
def fixture_upstream():
    """A server of this test's own."""
    upstream = Upstream()
    yield upstream
    upstream.server.shutdown()
    upstream.server.server_close()


@pytest.fixture(name="fetch")
def fixture_fetch(tmp_path):
    """A function that runs the role's tasks for hosts with some variables; gives exit code and output."""

    def run(hosts: dict[str, dict], **variables) -> tuple[int, str]:
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "asterisk_package_release": "1.0",
            "asterisk_package_cache": str(tmp_path / "cache"),
            "asterisk_package_enable": [],
            **variables,
        }
        (tmp_path / "hosts.json").write_text(json.dumps({"all": {"vars": common, "hosts": hosts}}))
        (tmp_path / "play.yml").write_text(PLAY)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "ANSIBLE_CONFIG": str(rendering.ROOT / "ansible.cfg"),
        }
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.json", tmp_path / "play.yml"],
            cwd=rendering.ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def release(*urls: str, checksums=(SHA256, MD5)) -> dict:
    """A release of one archive; its pjproject is a file of the same content that the mirror has."""
    return {
        "archive": {"name": "a.tar.gz", "checksums": list(checksums), "urls": list(urls)},
        "pjproject": {"version": "1", "checksums": [SHA256]},
        "sounds": {"core": "1", "moh": "1"},
    }


@pytest.fixture(name="mirror")
def fixture_mirror(tmp_path):
    """A directory with pjproject and nothing else."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/pjproject-1.tar.bz2").write_bytes(CONTENT)
    return tmp_path / "mirror"


def cached(tmp_path: Path) -> dict[str, bytes]:
    """The files in the cache, temporary ones included."""
    top = tmp_path / "cache/downloads"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_two_builders_download_at_the_same_time(fetch, upstream, mirror, tmp_path):
    # A first answer that fails is followed by another request; what the mirror lacks comes from upstream.
    upstream.answers = {"/a.tar.gz": [503, CONTENT]}
    variables = {
        "asterisk_package_mirror": str(mirror),
        "asterisk_package_extra_releases": {"1.0": release(f"{upstream.url}/a.tar.gz")},
    }
    code, output = fetch({"b1": {}, "b2": {}}, **variables)
    assert code == 0, output
    assert cached(tmp_path) == {"a.tar.gz": CONTENT, "pjproject-1.tar.bz2": CONTENT}
    assert upstream.requests == ["/a.tar.gz"] * 2
    # What is in the cache is verified again, and only what is wrong is downloaded again.
    (tmp_path / "cache/downloads/a.tar.gz").write_bytes(CONTENT[:-1])
    code, output = fetch({"b1": {}}, **variables)
    assert code == 0 and cached(tmp_path)["a.tar.gz"] == CONTENT, output
    assert upstream.requests == ["/a.tar.gz"] * 3


@pytest.mark.parametrize(
    ("content", "checksums", "reason"),
    [
        (b"something else", [SHA256], "The checksum for .* did not match"),
        (CONTENT, [SHA256, "md5:" + "0" * 32], "wrong checksum"),
        (404, [SHA256], "Request failed"),
    ],
)
def test_file_that_cannot_be_verified_is_refused(fetch, upstream, mirror, content, checksums, reason):
    upstream.answers = {"/a.tar.gz": [content]}
    address = f"{upstream.url}/a.tar.gz"
    code, output = fetch(
        {"b1": {}},
        asterisk_package_mirror=str(mirror),
        asterisk_package_extra_releases={"1.0": release(address, checksums=checksums)},
    )
    assert code != 0
    sentence = re.search(r"b1: a\.tar\.gz could not be downloaded from file:\S+ or (\S+) \((.*)\); allow", output)
    assert sentence and sentence[1] == address and re.search(reason, sentence[2]), output


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
def test_tree_comes_from_the_pinned_commit_alone(fetch, repository, mirror, tmp_path, wrong):
    place, commit = repository
    entry = release()
    del entry["archive"]
    entry["commit"] = "0" * 40 if wrong else commit
    code, output = fetch(
        {"b1": {}},
        asterisk_package_mirror=str(mirror),
        asterisk_package_git_url=f"file://{place}",
        asterisk_package_extra_releases={"1.0": entry},
    )
    if wrong:
        assert code != 0 and f"the tag is commit {commit} instead of {'0' * 40}" in output
        assert cached(tmp_path) == {}
    else:
        assert code == 0, output
        assert set(cached(tmp_path)) == {f"asterisk-1.0-{commit[:12]}.tar.gz", "pjproject-1.tar.bz2"}
        tree = tmp_path / f"cache/downloads/asterisk-1.0-{commit[:12]}.tar.gz"
        listed = subprocess.run(["tar", "-tzf", tree], check=True, capture_output=True, text=True).stdout.split()
        assert listed == ["asterisk-1.0/", "asterisk-1.0/configure"]
