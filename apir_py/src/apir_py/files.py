"""The page's files: read once, answered from memory."""

from __future__ import annotations

import gzip
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Awaitable, Callable

from aiohttp import web

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".ogg": "audio/ogg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wav": "audio/wav",
    ".woff2": "font/woff2",
}
COMPACT = (".ogg", ".png", ".woff2")
"""What gzip would not make smaller."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "media-src 'self' blob:; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class File:
    """A file's content, and as gzip, if that is smaller; `etag` stands for both."""

    content: bytes
    compressed: bytes | None
    etag: str
    headers: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> File:
        """Read a file (OSError)."""
        content = path.read_bytes()
        compressed = None if path.suffix in COMPACT else gzip.compress(content, 9, mtime=0)
        headers = {"Content-Type": TYPES[path.suffix], "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if path.suffix == ".html":
            headers["Content-Security-Policy"] = POLICY
            headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(self)"
        # Weak, since it belongs to two encodings.
        etag = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'
        smaller = compressed if compressed and len(compressed) < len(content) else None
        return cls(content, smaller, etag, {**headers, "ETag": etag})

    async def answer(self, request: web.Request) -> web.Response:
        """The content, or 304 to a browser that has it."""
        known = [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]
        if self.etag in known or self.etag[2:] in known or "*" in known:
            return web.Response(status=304, headers=self.headers)
        if self.compressed and takes_gzip(request.headers.get("Accept-Encoding", "")):
            return web.Response(body=self.compressed, headers={**self.headers, "Content-Encoding": "gzip"})
        return web.Response(body=self.content, headers=self.headers)


def takes_gzip(accepted: str) -> bool:
    """Whether a header Accept-Encoding lets gzip pass."""
    for choice in accepted.lower().split(","):
        name, _, quality = choice.partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "").rstrip("0.") not in ("q=", "q")
    return False


def file_routes(directory: Path) -> list[web.RouteDef]:
    """A route for each file below a directory, and `/` for its index.html (OSError).

    No path is ever looked up on the disk: what has no route does not exist.
    """
    routes = []
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if not path.is_file() or path.suffix == ".md":  # notes for whoever changes them
            continue
        if path.suffix not in TYPES:
            log.warning("%s is not served: its type is unknown", path)
            continue
        answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = File.read(path).answer
        routes.append(web.get(f"/{name}", answer))
        if name == "index.html":
            routes.append(web.get("/", answer))
    return routes
