# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Fetch sources into a cache on the controller, each one verified.

A source is one of

- a file: ``{"name": "pjproject-2.10.tar.bz2", "urls": [...], "checksums": ["sha256:...", "md5:..."]}``;
  every checksum given must hold. With none given, the file is held against the digest that
  upstream serves beside it (``<url>.sha256``).
- a commit: ``{"name": "asterisk-18.2.0-3fb4c584c293.tar.gz", "git": url, "commit": 40 hex digits,
  "ref": "18.2.0"}``; the commit names the tree, so it verifies itself.

A name may hold one directory (``mp3/common.c``). Files already in the cache are verified again.
Sources: Asterisk's own address layout; git's object model.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from ansible.module_utils.urls import open_url

CHUNK = 1 << 20


class SourceError(Exception):
    """A source that cannot be had; its text is the sentence for the user."""


def digest(path: Path, algorithm: str) -> str:
    """The hexadecimal digest of a file."""
    value = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            value.update(chunk)
    return value.hexdigest()


def wrong_checksum(path: Path, checksums: list[str]) -> str | None:
    """The first checksum (``algorithm:hex``) that a file does not have, as a phrase, else None."""
    for checksum in checksums:
        algorithm, _, wanted = checksum.partition(":")
        found = digest(path, algorithm)
        if found != wanted.lower():
            return f"has {algorithm} {found} where {wanted} is pinned"
    return None


class SourceCache:
    """The cache directory, with the addresses to fill it from.

    ``mirror`` is a directory or an address, asked before upstream; ``retries`` counts the further
    tries at an address that did not answer; ``say`` is called with one line before each download;
    ``timeout`` is in seconds.
    """

    def __init__(self, directory, mirror=None, retries=2, timeout=20, say=lambda line: None):
        self.directory = Path(directory)
        self.mirror = mirror
        self.retries = retries
        self.timeout = timeout
        self.say = say

    def get(self, source: dict) -> tuple[Path, str, bool]:
        """The path of a source in the cache, how it was verified, and whether it was fetched now.

        Raises SourceError.
        """
        path = self.directory / source["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._commit(source, path) if source.get("git") else self._file(source, path)

    def _file(self, source, path):
        checksums = source.get("checksums") or []
        how = " and ".join(checksum.partition(":")[0] for checksum in checksums) or "the digest beside it"
        if not checksums and self._sidecar(path).exists():
            checksums = [self._sidecar(path).read_text().strip()]
        if path.exists() and checksums and not wrong_checksum(path, checksums):
            return path, how, False
        failures = []
        for address in self._addresses(source):
            part = path.with_name(path.name + ".part")
            try:
                self._download(address, part, source["name"])
                held = checksums or self._digest_beside(address)
            except (OSError, ValueError) as error:
                failures.append(f"{address}: {error}")
                continue
            wrong = wrong_checksum(part, held)
            if wrong:
                part.unlink()
                raise SourceError(
                    f"{source['name']} from {address} {wrong}; it is not used. Give "
                    "asterisk_package_mirror the right file, or pin this one if you trust it."
                )
            if not source.get("checksums"):
                self._sidecar(path).write_text(held[0])
            os.replace(part, path)
            return path, how, True
        raise SourceError(
            f"{source['name']} cannot be had ({'; '.join(failures)}); "
            "let the controller reach one of these, or point asterisk_package_mirror "
            "at a directory or address that has the file."
        )

    def _addresses(self, source):
        if self.mirror:
            yield f"{str(self.mirror).rstrip('/')}/{source['name']}"
        yield from source["urls"]

    @staticmethod
    def _sidecar(path):
        return path.with_name(path.name + ".verified")

    def _digest_beside(self, address):
        with open_url(address + ".sha256", timeout=self.timeout) as stream:
            return ["sha256:" + stream.read(200).split()[0].decode("ascii")]

    def _download(self, address, part, name):
        if "://" not in address:
            shutil.copyfile(address, part)
            return
        for attempt in range(self.retries + 1):
            try:
                self.say(f"fetching {name}")
                with open_url(address, timeout=self.timeout) as stream, open(part, "wb") as target:
                    shutil.copyfileobj(stream, target, CHUNK)
                return
            except (OSError, ValueError):
                if attempt == self.retries:
                    raise
                time.sleep(2**attempt)

    def _commit(self, source, path):
        how = f"commit {source['commit'][:12]}"
        if (
            path.exists()
            and self._sidecar(path).exists()
            and not wrong_checksum(path, [self._sidecar(path).read_text().strip()])
        ):
            return path, how, False
        if not shutil.which("git"):
            raise SourceError(
                f"git is not installed on the controller, and {source['name']} is had by git; install it."
            )
        repository = self.directory / "git"
        self._git("init", "--quiet", "--bare", str(repository))
        failures = []
        for address in self._repositories(source):
            self.say(f"fetching {source['ref']} from {address}")
            try:
                self._fetch(repository, address, source)
            except (subprocess.SubprocessError, OSError) as error:
                reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
                failures.append(f"{address}: {reason[-1] if reason else 'failed'}")
                continue
            part = path.with_name(path.name + ".part")
            self._git(
                "-C",
                str(repository),
                "archive",
                "--format=tar.gz",
                f"--prefix=asterisk-{source['ref']}/",
                f"--output={part}",
                source["commit"],
            )
            self._sidecar(path).write_text("sha256:" + digest(part, "sha256"))
            os.replace(part, path)
            return path, how, True
        raise SourceError(
            f"Asterisk {source['ref']} cannot be had ({'; '.join(failures)}); let the controller reach "
            "one of these, or point asterisk_package_git_url at a clone that holds the tag."
        )

    def _repositories(self, source):
        if self.mirror and "://" not in str(self.mirror) and (Path(self.mirror) / "asterisk.git").is_dir():
            yield str(Path(self.mirror) / "asterisk.git")
        yield source["git"]

    def _fetch(self, repository, address, source):
        """Fetch the commit, by its own name or by its tag; raises when what came is another one."""
        for wanted in (source["commit"], f"refs/tags/{source['ref']}"):
            try:
                self._git("-C", str(repository), "fetch", "--quiet", "--depth=1", "--no-tags", address, wanted)
                break
            except subprocess.CalledProcessError:
                # Not every server hands out a commit that is asked for by name.
                if wanted != source["commit"]:
                    raise
        found = self._git("-C", str(repository), "rev-parse", "FETCH_HEAD^{commit}").strip()
        if found != source["commit"]:
            raise SourceError(
                f"The tag {source['ref']} of {address} is commit {found} where {source['commit']} is "
                "pinned; it is not used. Point asterisk_package_git_url at upstream or a true copy."
            )

    def _git(self, *arguments):
        return subprocess.run(
            ["git", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        ).stdout
