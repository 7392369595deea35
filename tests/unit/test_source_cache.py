"""The one way sources come in: verified, cached, tried again, taken from a mirror; and what it says when it cannot."""

from __future__ import annotations

import hashlib
import http.server
import subprocess
import threading

import pytest
from ansible_collections.labredes.pbx.plugins.plugin_utils import source_cache
from ansible_collections.labredes.pbx.plugins.plugin_utils.source_cache import SourceCache, SourceError

CONTENT = b"a source\n" * 1000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Upstream:
    """An HTTP server on this machine; `answers` maps a path to contents or status codes, given in turn."""

    def __init__(self):
        self.answers = {}
        self.asked = []
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Gives the answers."""

            def do_GET(self):
                upstream.asked.append(self.path)
                turns = upstream.answers.get(self.path, [404])
                answer = turns.pop(0) if len(turns) > 1 else turns[0]
                self.send_response(answer if isinstance(answer, int) else 200)
                self.end_headers()
                if isinstance(answer, bytes):
                    self.wfile.write(answer)

            def log_message(self, *_words):
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture(name="upstream")
def fixture_upstream(monkeypatch):
    """An upstream of this test's own, and no waiting between tries."""
    monkeypatch.setattr(source_cache.time, "sleep", lambda _seconds: None)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    upstream = Upstream()
    yield upstream
    upstream.server.shutdown()
    upstream.server.server_close()


@pytest.fixture(name="cache")
def fixture_cache(tmp_path):
    """An empty cache whose downloads fail fast."""
    return SourceCache(tmp_path / "cache", timeout=2)


def source(*urls, name="x-1.tar.gz", checksums=(SHA256, MD5)):
    """A file to fetch."""
    return {"name": name, "urls": list(urls), "checksums": list(checksums)}


def kept(cache):
    """What the cache holds."""
    return sorted(str(path.relative_to(cache.directory)) for path in cache.directory.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_verified_again(cache, upstream):
    upstream.answers["/x"] = [CONTENT]
    path, how, fetched = cache.get(source(upstream.url + "/x"))
    assert (path.read_bytes(), how, fetched) == (CONTENT, "sha256 and md5", True)
    assert cache.get(source(upstream.url + "/x")) == (path, "sha256 and md5", False)
    assert upstream.asked == ["/x"]
    path.write_bytes(CONTENT[:-1])
    assert cache.get(source(upstream.url + "/x"))[2], "a file that was damaged in the cache is fetched anew"
    assert path.read_bytes() == CONTENT


def test_a_name_may_hold_a_directory(cache, upstream):
    upstream.answers["/common.c"] = [CONTENT]
    path, _, _ = cache.get(source(upstream.url + "/common.c", name="mp3/common.c"))
    assert path == cache.directory / "mp3/common.c"


@pytest.mark.parametrize("checksums", [(SHA256[:-4] + "0000",), (SHA256, MD5[:-4] + "0000")])
def test_a_wrong_digest_is_refused_and_nothing_is_kept(cache, upstream, checksums):
    upstream.answers["/x"] = [CONTENT]
    with pytest.raises(SourceError) as caught:
        cache.get(source(upstream.url + "/x", checksums=checksums))
    kind = checksums[-1].partition(":")[0]
    told = str(caught.value)
    assert told.startswith(f"x-1.tar.gz from {upstream.url}/x has {kind} ")
    assert f"where {checksums[-1].partition(':')[2]} is pinned; it is not used" in told and "\n" not in told
    assert kept(cache) == []


def test_a_server_that_is_busy_is_asked_again(cache, upstream):
    upstream.answers["/x"] = [503, 503, CONTENT]
    assert cache.get(source(upstream.url + "/x"))[2]
    assert upstream.asked == ["/x"] * 3


def test_the_next_address_is_asked_when_one_fails(cache, upstream):
    upstream.answers["/old-releases/x"] = [CONTENT]
    dead = "http://127.0.0.1:9"
    assert cache.get(source(dead + "/x", upstream.url + "/releases/x", upstream.url + "/old-releases/x"))[2]


def test_a_cut_download_is_told_and_not_kept(cache, upstream):
    upstream.answers["/x"] = [CONTENT[:100]]
    with pytest.raises(SourceError, match="has sha256"):
        cache.get(source(upstream.url + "/x"))
    assert kept(cache) == []


def test_all_addresses_are_named_when_none_answers(cache, upstream):
    with pytest.raises(SourceError) as caught:
        cache.get(source(upstream.url + "/a", upstream.url + "/b"))
    told = str(caught.value)
    assert told.startswith("x-1.tar.gz cannot be had (") and "\n" not in told
    assert upstream.url + "/a: HTTP Error 404" in told and upstream.url + "/b: HTTP Error 404" in told
    assert told.endswith("point asterisk_package_mirror at a directory or address that has the file.")
    assert kept(cache) == []


def test_a_mirror_directory_is_enough(tmp_path, upstream):
    (tmp_path / "mirror/mp3").mkdir(parents=True)
    (tmp_path / "mirror/x-1.tar.gz").write_bytes(CONTENT)
    (tmp_path / "mirror/mp3/common.c").write_bytes(CONTENT)
    cache = SourceCache(tmp_path / "cache", tmp_path / "mirror")
    for name in ("x-1.tar.gz", "mp3/common.c"):
        assert cache.get(source(upstream.url + "/x", name=name))[0].read_bytes() == CONTENT
    assert upstream.asked == []
    assert (tmp_path / "mirror/x-1.tar.gz").exists(), "a mirror is copied from"


def test_a_mirror_address_comes_first_and_upstream_after_it(tmp_path, upstream):
    upstream.answers |= {"/mirror/x-1.tar.gz": [CONTENT], "/y": [CONTENT]}
    cache = SourceCache(tmp_path / "cache", upstream.url + "/mirror/", retries=0)
    cache.get(source(upstream.url + "/x"))
    cache.get(source(upstream.url + "/y", name="y-1.tar.gz"))
    assert upstream.asked == ["/mirror/x-1.tar.gz", "/mirror/y-1.tar.gz", "/y"]


def test_a_wrong_file_in_the_mirror_is_refused(tmp_path, upstream):
    upstream.answers["/x"] = [CONTENT]
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/x-1.tar.gz").write_bytes(b"something else")
    cache = SourceCache(tmp_path / "cache", tmp_path / "mirror")
    with pytest.raises(SourceError, match=r"x-1\.tar\.gz from .*/mirror/x-1\.tar\.gz has sha256"):
        cache.get(source(upstream.url + "/x"))


def test_a_file_without_a_pin_is_held_against_the_digest_beside_it(cache, upstream):
    upstream.answers |= {"/x": [CONTENT], "/x.sha256": [SHA256.partition(":")[2].encode() + b"  x-1.tar.gz\n"]}
    assert cache.get(source(upstream.url + "/x", checksums=()))[1:] == ("the digest beside it", True)
    assert cache.get(source(upstream.url + "/x", checksums=()))[1:] == ("the digest beside it", False)
    assert upstream.asked == ["/x", "/x.sha256"]


def test_a_file_without_a_pin_or_a_digest_beside_it_is_refused(cache, upstream):
    upstream.answers["/x"] = [CONTENT]
    with pytest.raises(SourceError, match="cannot be had"):
        cache.get(source(upstream.url + "/x", checksums=()))
    assert "x-1.tar.gz" not in kept(cache)


@pytest.fixture(name="repository")
def fixture_repository(tmp_path):
    """A repository with the tag 1.0, whose file `configure` says 1, and its later tag 2.0."""
    place = tmp_path / "upstream"

    def git(*words):
        return subprocess.run(
            [
                "git",
                "-C",
                str(place),
                "-c",
                "user.name=x",
                "-c",
                "user.email=x@example.org",
                "-c",
                "commit.gpgsign=false",
                *words,
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    place.mkdir()
    git("init", "--quiet")
    for number in "12":
        (place / "configure").write_text(number)
        git("add", "configure")
        git("commit", "--quiet", "--message", number)
        git("tag", f"{number}.0")
    git.place, git.commit = place, git("rev-parse", "1.0^{commit}")
    return git


def tree(repository, **told):
    """The tree of the tag 1.0."""
    return {
        "name": "asterisk-1.0.tar.gz",
        "git": str(repository.place),
        "commit": repository.commit,
        "ref": "1.0",
        **told,
    }


def test_a_commit_is_fetched_once_as_an_archive(cache, repository):
    path, how, fetched = cache.get(tree(repository))
    assert (how, fetched) == (f"commit {repository.commit[:12]}", True)
    told = subprocess.run(["tar", "-xzOf", path, "asterisk-1.0/configure"], check=True, capture_output=True, text=True)
    assert told.stdout == "1"
    first = path.read_bytes()
    assert cache.get(tree(repository))[2] is False
    path.write_bytes(first[:-1])
    assert cache.get(tree(repository))[2] is True


def test_a_tag_that_moved_is_refused(cache, repository):
    # A commit that is nowhere in the repository: the tag is what is left to ask for.
    with pytest.raises(SourceError) as caught:
        cache.get(tree(repository, commit="0" * 40))
    told = str(caught.value)
    assert told.startswith(
        f"The tag 1.0 of {repository.place} is commit {repository.commit} where {'0' * 40} is pinned"
    )
    assert "\n" not in told and kept_archives(cache) == []


def test_a_clone_in_the_mirror_is_enough(tmp_path, repository):
    subprocess.run(
        ["git", "clone", "--quiet", "--bare", repository.place, tmp_path / "mirror/asterisk.git"], check=True
    )
    cache = SourceCache(tmp_path / "cache", tmp_path / "mirror")
    assert cache.get(tree(repository, git=str(tmp_path / "nowhere")))[2]


def test_a_repository_that_does_not_answer_is_named(cache, repository, tmp_path):
    with pytest.raises(SourceError) as caught:
        cache.get(tree(repository, git=str(tmp_path / "nowhere")))
    told = str(caught.value)
    assert told.startswith(f"Asterisk 1.0 cannot be had ({tmp_path}/nowhere: ") and "\n" not in told
    assert told.endswith("point asterisk_package_git_url at a clone that holds the tag.")
    assert kept_archives(cache) == []


def kept_archives(cache):
    """The archives that the cache holds."""
    return [
        name for name in kept(cache) if name.endswith((".gz", ".part", ".verified")) and not name.startswith("git/")
    ]
