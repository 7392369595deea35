"""What the tests of role asterisk_package share: a server of files, a release, and runs of the role on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import rendering
import yaml

CONTENT = b"a file\n" * 1000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
FACTS = {"ansible.builtin.set_fact": {"ansible_facts": rendering.FACTS["Debian 11"]}}


class Upstream:
    """An HTTP server on this machine; `answers` maps a path to contents, status codes or functions, given in turn."""

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
                elif callable(answer):
                    answer(self.wfile)

            def log_message(self, *_words):
                """Log nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


def release(*urls: str, checksums=(SHA256, MD5)) -> dict:
    """A release of one archive; its pjproject is a file of the same content that the mirror has."""
    return {
        "archive": {"name": "a.tar.gz", "checksums": list(checksums), "urls": list(urls)},
        "pjproject": {"version": "1", "checksums": [SHA256]},
        "sounds": {"core": "1", "moh": "1"},
    }


class Controller:
    """Runs tasks of the role on this machine, with a cache and a mirror in a directory of its own."""

    def __init__(self, place: Path):
        self.place, self.cache, self.mirror = place, place / "cache", place / "mirror"
        self.mirror.mkdir()
        (self.mirror / "pjproject-1.tar.bz2").write_bytes(CONTENT)

    def start(self, tasks: list, hosts: dict[str, dict], *before: str, **variables) -> subprocess.Popen:
        """Start a run of tasks for hosts with some variables; `before` are words before its command."""
        common = {
            "ansible_connection": "local",
            "ansible_become": False,
            "labredes_validated": True,
            "ansible_python_interpreter": sys.executable,
            "asterisk_package_release": "1.0",
            "asterisk_package_cache": str(self.cache),
            "asterisk_package_mirror": str(self.mirror),
            "asterisk_package_enable": [],
            **variables,
        }
        # Each run has its own files, since two may run at the same time.
        number = len(list(self.place.glob("hosts*.json")))
        inventory, playbook = self.place / f"hosts{number}.json", self.place / f"play{number}.yml"
        inventory.write_text(json.dumps({"all": {"vars": common}, "pbx": {"hosts": hosts}}))
        playbook.write_text(yaml.safe_dump([{"hosts": "pbx", "gather_facts": False, "tasks": tasks}]))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "ANSIBLE_CONFIG": str(rendering.ROOT / "ansible.cfg"),
        }
        return subprocess.Popen(
            [*before, Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, playbook],
            cwd=rendering.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, tasks: list, hosts: dict[str, dict], *before: str, **variables) -> tuple[int, str]:
        """A run's exit code and output."""
        return end(self.start(tasks, hosts, *before, **variables))

    def downloads(self) -> dict[str, bytes]:
        """The downloaded files in the cache, temporary ones included."""
        top = self.cache / "downloads"
        return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def end(run: subprocess.Popen) -> tuple[int, str]:
    """Wait for a run; gives its exit code and output, without line breaks."""
    output, _ = run.communicate(timeout=240)
    return run.returncode, " ".join(output.split())


def role(*files: str, name: str = "labredes.pbx.asterisk_package", **variables) -> list[dict]:
    """Tasks that include task files of a role, with some variables."""
    return [{"ansible.builtin.include_role": {"name": name, "tasks_from": file}, "vars": variables} for file in files]
