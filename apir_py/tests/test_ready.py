"""What the service reports to systemd, which starts it as ready once it listens (Type=notify)."""

from __future__ import annotations

import socket

import pytest
from apir_py.server import notify_ready


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_notified(tmp_path, monkeypatch, abstract):
    path = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(5)
        systemd.bind(f"\0{path}" if abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{path}" if abstract else path)
        notify_ready()
        assert systemd.recv(100) == b"READY=1"


def test_nobody_is_notified_without_systemd(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify_ready()
