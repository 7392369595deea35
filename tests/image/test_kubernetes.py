"""The pod of docs/image.md, run by podman as Kubernetes would, on a network of a host of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from conftest import ENGINE, NAME, ROOT, SETTINGS, engine
from test_running import call
from volumes import Copy

HOST = f"{NAME}-host"
PAGE = (ROOT / "docs" / "image.md").read_text()


def example() -> str:
    """The YAML of the page."""
    block = re.search(r"(?m)^    apiVersion: v1\n(?:    .*\n|\n)+", PAGE)[0]
    return re.sub(r"(?m)^    ", "", block)


@pytest.fixture
def host(info, tmp_path) -> Iterator[str]:
    """The address of a host that has the pod's directories; the containers of the pod are in its network."""
    if ENGINE != "podman":
        pytest.skip("podman alone runs a pod of Kubernetes")
    pod = yaml.safe_load(example())
    copies = {volume["name"]: tmp_path / volume["name"] for volume in pod["spec"]["volumes"]}
    for service in ("pbx", "records"):
        copy = Copy(service)
        try:
            for volume, _path, *_mode in copy.volumes:
                mounts = [f"--volume={copy.name}-{volume}:/from:ro", f"--volume={tmp_path}:/to"]
                script = f"mkdir -p /to/{volume} && cp -a /from/. /to/{volume}/"
                copy_command = ["run", "--rm", "--user=0", "--entrypoint=sh", *mounts, copy.image, "-c", script]
                engine(*copy_command)
        finally:
            copy.remove()
    # Its database is elsewhere, which this one has not; records wait.
    (copies["etc"] / "cdr_pgsql.conf").unlink()
    text = example()
    for volume in pod["spec"]["volumes"]:
        if "hostPath" in volume:
            text = text.replace(f"path: {volume['hostPath']['path']}}}", f"path: {copies[volume['name']]}}}")
    text = re.sub(r"registry\.example/(labredes-\w+):\S+", r"localhost/\1:latest", text)
    (tmp_path / "pod.yml").write_text(text)
    engine("run", "--detach", f"--name={HOST}", "--entrypoint=sleep", "localhost/labredes-pbx:latest", "600")
    shown = engine("inspect", "--format", "{{.State.Pid}} {{.NetworkSettings.IPAddress}}", HOST).stdout
    number, address = shown.split()
    play = ["nsenter", f"--target={number}", "--net", "podman", "kube", "play", str(tmp_path / "pod.yml")]
    try:
        done = subprocess.run(play, capture_output=True, text=True, check=False, timeout=60, env=settings(tmp_path))
        assert done.returncode == 0, done.stderr
        yield address
    finally:
        engine("pod", "rm", "--force", "exchange", check=False)
        engine("rm", "--force", "--time=0", HOST, check=False)


def settings(directory: Path) -> dict[str, str]:
    """The environment with which podman runs pods here: it refuses the limits with which it runs containers."""
    if not SETTINGS.exists():
        return dict(os.environ)
    own = directory / "containers.conf"
    own.write_text(re.sub("default_ulimits = .*", "default_ulimits = []", SETTINGS.read_text()))
    return {**os.environ, "CONTAINERS_CONF": str(own)}


def test_pod_of_the_page_takes_a_call(host, info):
    probe = yaml.safe_load(example())["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
    end = time.monotonic() + 20
    while engine("exec", "exchange-pbx", *probe, check=False).returncode:
        assert time.monotonic() < end, engine("logs", "exchange-pbx", check=False).stderr
        time.sleep(0.5)
    with call({**info, "host": host}):
        pass
    status = engine("exec", "exchange-pbx", "cat", "/proc/1/status").stdout
    assert re.search(r"(?m)^CapEff:\s*0+$", status) and re.search(r"(?m)^Uid:\s*5060", status)
    # Without its database the record of the call waits.
    shown = engine("exec", "exchange-records", "labredes-cdr", "status")
    assert json.loads(shown.stdout)["waiting"] == 1
