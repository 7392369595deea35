"""Asterisk itself may write to PostgreSQL, but waits for no server that does not answer."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psycopg2
import pytest
import records

INSERT = "INSERT INTO cdr (src, uniqueid, sequence) VALUES ('6001', 'pbx1-1.1', %s)"


@pytest.fixture
def service(server, tmp_path):
    """A function that starts the service with short waits, and one that connects through it as cdr_pgsql does."""
    server.query("TRUNCATE cdr")
    made = records.Forwarder(tmp_path, server)
    made.prepare()

    def start(code: str = "") -> None:
        made.start(f"m.HELD = 0.5; m.LONGEST = 1.5\n{code}")
        deadline = time.monotonic() + 10
        while not made.status_file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def connect():
        return psycopg2.connect(
            host=str(tmp_path), port=server.port, user="asterisk", dbname="asterisk", sslmode="require"
        )

    made.begin, made.connect = start, connect
    yield made
    made.stop()


def seconds_of(action, *arguments) -> float:
    """How long something takes that fails, which without a limit it would not."""
    began = time.monotonic()
    pool = ThreadPoolExecutor()
    failed = pool.submit(action, *arguments).exception(timeout=8)
    pool.shutdown(wait=False)
    assert isinstance(failed, psycopg2.OperationalError), failed
    return time.monotonic() - began


@pytest.mark.parametrize("held", ["frozen", "locked"])
def test_server_that_does_not_answer_is_left(service, server, held):
    service.begin()
    with closing(service.connect()) as connection, closing(server.connect()) as other:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute(INSERT, (1,))
        if held == "frozen":
            server.signal(signal.SIGSTOP)
        else:
            other.cursor().execute("LOCK TABLE cdr")
        try:
            assert 0.4 < seconds_of(cursor.execute, INSERT, (2,)) < 1.4
            # Nobody waits again at once.
            assert seconds_of(service.connect) < 0.4
        finally:
            server.signal(signal.SIGCONT)
    assert "did not answer Asterisk within 0.5 s; it is not asked again for 1.5 s" in service.log.read_text()
    deadline = time.monotonic() + 10
    while True:
        with suppress(psycopg2.OperationalError), closing(service.connect()) as connection:
            connection.cursor().execute(INSERT, (3,))
            connection.commit()
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (3,) in server.query("SELECT sequence FROM cdr")


def test_server_that_answers_the_service_is_asked_again(service, server):
    service.begin("m.LONGEST = 60; m.ANSWER = 1")
    server.signal(signal.SIGSTOP)
    try:
        seconds_of(service.connect)
        service.write(records.record(1))
    finally:
        server.signal(signal.SIGCONT)
    service.wait()
    service.connect().close()


def test_frozen_server_is_not_connected_to(service, server):
    service.begin()
    server.signal(signal.SIGSTOP)
    try:
        assert 0.4 < seconds_of(service.connect) < 1.4
        assert seconds_of(service.connect) < 0.4
    finally:
        server.signal(signal.SIGCONT)


def test_stopped_server_is_refused_at_once(service, server):
    service.begin()
    server.kill()
    try:
        assert seconds_of(service.connect) < 0.4
    finally:
        server.start()
    # One that refuses may be asked again at once.
    service.connect().close()


def test_long_answers_pass_whole(service):
    service.begin()
    with closing(service.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 3000000), length(%s)", ("y" * 2000000,))
        text, length = cursor.fetchone()
        assert (len(text), length) == (3000000, 2000000)
        # What takes a while between two questions is no wait.
        time.sleep(0.7)
        cursor.execute("SELECT 1")


def test_service_does_not_go_on_without_it(service):
    service.begin("m.Relay.step = lambda self: 1 / 0")
    assert service.process.wait(timeout=10) == 1
    service.process = None
    assert "ZeroDivisionError" in service.log.read_text()


def test_socket_is_for_the_group_alone(service, tmp_path, server):
    service.begin()
    assert (tmp_path / f".s.PGSQL.{server.port}").stat().st_mode & 0o777 == 0o660
