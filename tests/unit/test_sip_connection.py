"""SIP over UDP, TCP, TLS and WebSocket: what is sent and received, whole messages alone."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.labredes.pbx.plugins.module_utils import sip_connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_connection import Connection
from ansible_collections.labredes.pbx.plugins.module_utils.sip_message import Message, SipError
from ansible_collections.labredes.pbx.plugins.module_utils.sip_phone import Phone

PLAIN = Message("OPTIONS sip:a SIP/2.0", [("Via", "SIP/2.0/TCP a;branch=b1"), ("CSeq", "1 OPTIONS")]).to_bytes()
WITH_BODY = Message("SIP/2.0 200 OK", [("CSeq", "1 INVITE"), ("X", "ñ" * 60)], "v=0\r\n\r\na=\r\n").to_bytes()


def server_frame(payload: bytes, opcode: int = 1) -> bytes:
    """A frame as a server sends it."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 127]) + size.to_bytes(8, "big")
    return head + payload


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("between", [b"", b"\r\n\r\n"])
def test_stream_gives_whole_messages(step, between):
    stream, found, rest = PLAIN + between + WITH_BODY + PLAIN, [], b""
    for start in range(0, len(stream), step):
        messages, rest = sip_connection.split_stream(rest + stream[start : start + step])
        found += messages
    assert (found, rest) == ([PLAIN, WITH_BODY, PLAIN], b"")


def test_stream_knows_the_short_name_of_the_length():
    short = b"SIP/2.0 200 OK\r\nl : 3\r\n\r\nabc"
    assert sip_connection.split_stream(short + b"SIP") == ([short], b"SIP")


@pytest.mark.parametrize("step", [1, 50, 100_000])
def test_frames_of_every_size_give_their_payloads(step):
    payloads = [b"x" * size for size in (1, 125, 126, 65535, 65536)]
    stream, found, rest = b"".join(map(server_frame, payloads)), [], b""
    if step == 1:
        stream, payloads = b"".join(map(server_frame, payloads[:3])), payloads[:3]
    for start in range(0, len(stream), step):
        more, rest = sip_connection.split_frames(rest + stream[start : start + step])
        found += more
    assert (found, rest) == (payloads, b"")


def test_frames_without_a_message_are_left_out():
    stream = server_frame(b"ping", 9) + server_frame(b"\r\n\r\n") + server_frame(b"text") + server_frame(b"binary", 2)
    assert sip_connection.split_frames(stream) == ([b"text", b"binary"], b"")


def unmasked(frame: bytes) -> bytes:
    """The payload of a frame of a client."""
    assert frame[:2] == b"\x81\xfe", "not one masked text frame with a length of 16 bits"
    size, mask = int.from_bytes(frame[2:4], "big"), frame[4:8]
    assert len(frame) == 8 + size
    return bytes(byte ^ mask[place % 4] for place, byte in enumerate(frame[8:]))


def test_frame_of_a_client_is_masked():
    first, second = sip_connection.frame(WITH_BODY), sip_connection.frame(WITH_BODY)
    assert unmasked(first) == unmasked(second) == WITH_BODY
    assert first != second and WITH_BODY not in first


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A self-signed certificate and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
    subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + (path.parent / "both.pem.crt").read_text())
    return path


@pytest.fixture
def echo(certificate):
    """A function that starts a server of a transport, which sends back what it receives, in two parts."""
    with contextlib.ExitStack() as stack:

        def start(transport: str, upgrade: str = "101 Switching Protocols") -> tuple[str, int]:
            kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
            server = stack.enter_context(socket.socket(socket.AF_INET, kind))
            server.bind(("127.0.0.1", 0))
            if transport != "udp":
                server.listen()
            threading.Thread(target=serve, args=(server, transport, upgrade), daemon=True).start()
            return server.getsockname()

        def serve(server: socket.socket, transport: str, upgrade: str) -> None:
            if transport == "udp":
                server.sendto(*server.recvfrom(65535))
                return
            client = stack.enter_context(server.accept()[0])
            if transport != "tcp":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate)
                client = stack.enter_context(context.wrap_socket(client, server_side=True))
            if transport == "wss":
                asked = client.recv(65535).decode()
                assert asked.startswith("GET /ws HTTP/1.1\r\n") and "Sec-WebSocket-Protocol: sip\r\n" in asked
                assert re.search(r"^Sec-WebSocket-Key: \S{22}==\r$", asked, re.MULTILINE)
                client.sendall(f"HTTP/1.1 {upgrade}\r\nUpgrade: websocket\r\n\r\n".encode())
            if not (data := client.recv(65535)):
                return
            data = server_frame(unmasked(data)) if transport == "wss" else data
            client.sendall(data[:9])
            client.sendall(data[9:])

        yield start


def received(connection: Connection) -> list[bytes]:
    """The messages that come next."""
    for _attempt in range(200):
        if messages := connection.receive():
            return messages
        threading.Event().wait(0.01)
    return []


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls", "wss"])
def test_message_returns_whole(transport, echo, certificate):
    connection = Connection(transport, echo(transport))
    assert connection.receive() == [], "receive() waits"
    connection.send(WITH_BODY)
    assert received(connection) == [WITH_BODY]
    served = connection.certificate and ssl.DER_cert_to_PEM_cert(connection.certificate)
    assert served == (None if transport in ("udp", "tcp") else (certificate.parent / "both.pem.crt").read_text())
    connection.socket.close()


def test_phone_over_ipv6_says_so():
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.bind(("::1", 0))
        phone = Phone("me", ("me", "secret"), Connection("udp", server.getsockname()[:2]))
        phone.dial("you")
        text, port = server.recv(65535).decode(), server.getsockname()[1]
    assert text.startswith(f"INVITE sip:you@[::1]:{port} SIP/2.0\r\nVia: SIP/2.0/UDP [::1]:{phone.connection.port};")
    assert "\r\nFrom: <sip:me@[::1]>;tag=" in text and "\r\nc=IN IP6 ::1\r\n" in text
    assert f"\r\nContact: <sip:me@[::1]:{phone.connection.port};transport=udp>\r\n" in text


@pytest.mark.parametrize("transport", ["tcp", "tls", "wss"])
def test_closed_port_is_named(transport):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(SipError, match=f"port {address[1]} of 127.0.0.1 is closed"):
        Connection(transport, address)


def test_silent_tls_port_is_given_up_in_time():
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(SipError, match="does not serve SIP .*timed out"),
    ):
        Connection("tls", server.getsockname(), 0.2)


def test_refused_websocket_is_named(echo):
    with pytest.raises(SipError, match=r"does not serve SIP \(/ws answered 'HTTP/1.1 404 Not Found'\)"):
        Connection("wss", echo("wss", "404 Not Found"))


def test_ended_connection_is_named(echo):
    connection = Connection("tcp", echo("tcp"))
    connection.send(PLAIN)
    received(connection)
    connection.socket.shutdown(socket.SHUT_RDWR)
    with pytest.raises(SipError, match="does not serve SIP .it ended the connection."):
        received(connection)
