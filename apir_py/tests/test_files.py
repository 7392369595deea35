"""The page's files: who gets them, in which form, and what is not given."""

from __future__ import annotations

import asyncio
import gzip
import ssl

import pytest
from apir_py.files import takes_gzip
from test_service import running

PAGE = "<!doctype html><title>Centralita</title>" + "<p>Recepción</p>" * 50


@pytest.fixture(autouse=True)
def web(tmp_path, monkeypatch):
    """A directory of files in place of the page's."""
    web = tmp_path / "web"
    (web / "phone").mkdir(parents=True)
    (web / "index.html").write_text(PAGE)
    (web / "app.js").write_text("export const x = 1\n" * 50)
    (web / "phone/ring.wav").write_bytes(b"RIFF" + bytes(500))
    (web / "phone/short.css").write_text("a{}")
    for name in ("a.mjs", "a.svg", "a.json", "a.woff2", "a.ogg", "a.txt", "a.png", "notes.doc", ".hidden"):
        (web / name).write_text("x")
    (tmp_path / "secret.txt").write_text("s3cret")
    monkeypatch.setattr("apir_py.server.WEB", web)
    return web


@pytest.mark.parametrize("path", ["/", "/index.html"])
async def test_page_has_its_headers(certificate, path):
    async with running(certificate) as (_, service), service.http.get(service.url + path) as response:
        assert (response.status, await response.text()) == (200, PAGE)
        headers = response.headers
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "media-src 'self' blob:; font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-cache", "nosniff")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "microphone=(self)" in headers["Permissions-Policy"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/a.mjs", "text/javascript; charset=utf-8"),
        ("/a.svg", "image/svg+xml"),
        ("/a.json", "application/json"),
        ("/a.woff2", "font/woff2"),
        ("/a.ogg", "audio/ogg"),
        ("/a.png", "image/png"),
        ("/a.txt", "text/plain; charset=utf-8"),
        ("/phone/ring.wav", "audio/wav"),
        ("/phone/short.css", "text/css; charset=utf-8"),
    ],
)
async def test_file_has_its_type_and_no_rights(certificate, path, kind):
    async with running(certificate) as (_, service), service.http.get(service.url + path) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, kind)
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


async def raw(service, path, method="GET", **headers):
    """Status, headers and body as they come over the wire."""
    trust = ssl.create_default_context(cafile=service.certificate[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port, ssl=trust)
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{service.port}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in rest), body


async def test_file_is_compressed_for_who_takes_it(certificate):
    async with running(certificate) as (_, service):
        status, headers, body = await raw(service, "/", Accept_Encoding="br, gzip;q=0.5")
        assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
        assert gzip.decompress(body).decode() == PAGE
        assert len(body) == int(headers["Content-Length"]) < len(PAGE) / 4
        _, headers, body = await raw(service, "/", Accept_Encoding="gzip;q=0, br")
        assert ("Content-Encoding" in headers, body.decode()) == (False, PAGE)
        _, headers, body = await raw(service, "/phone/short.css", Accept_Encoding="gzip")
        assert ("Content-Encoding" in headers, body) == (False, b"a{}")


@pytest.mark.parametrize(
    ("accepted", "takes"),
    [
        ("gzip", True),
        ("deflate, GZIP ; q=1.0", True),
        ("gzip;q=0.001", True),
        ("gzip; q=0.000", False),
        ("gzip;q=0", False),
        ("", False),
        ("identity", False),
        ("xgzip", False),
    ],
)
def test_gzip_is_taken_as_it_is_offered(accepted, takes):
    assert takes_gzip(accepted) == takes


async def test_file_that_the_browser_has_is_not_sent(certificate):
    async with running(certificate) as (_, service):
        _, headers, _ = await raw(service, "/app.js")
        for known in (headers["ETag"], f'"x", {headers["ETag"]}', headers["ETag"][2:], "*"):
            status, found, body = await raw(service, "/app.js", If_None_Match=known)
            assert (status, body, found["ETag"]) == (304, b"", headers["ETag"])
        assert (await raw(service, "/app.js", If_None_Match='W/"other"'))[0] == 200
        assert (await raw(service, "/index.html"))[1]["ETag"] != headers["ETag"]


async def test_head_has_the_headers_alone(certificate):
    async with running(certificate) as (_, service):
        status, headers, body = await raw(service, "/", method="HEAD")
    assert (status, body, int(headers["Content-Length"])) == (200, b"", len(PAGE.encode()))


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/phone/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/phone/..%5c..%5csecret.txt",
        "//secret.txt",
        "/phone",
        "/phone/",
        "/notes.doc",
        "/.hidden",
        "/app.js%00.html",
        "/APP.JS",
        "/app.js/",
    ],
)
async def test_what_is_no_file_of_the_page_is_not_found(certificate, path):
    async with running(certificate) as (_, service):
        status, headers, body = await raw(service, path)
    assert (status, body) == (404, b'{"error": "Not Found"}')
    assert headers["Content-Type"] == "application/json; charset=utf-8"


async def test_file_is_not_written_to(certificate):
    async with running(certificate) as (_, service):
        assert (await service.post("/app.js"))[0] == 405


async def test_file_of_unknown_type_is_named_at_the_start(certificate, caplog):
    async with running(certificate):
        pass
    assert "notes.doc is not served: its type is unknown" in caplog.text
