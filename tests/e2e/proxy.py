"""nginx as a process of the tests, configured by deploy/nginx.conf; and what else runs as a process on loopback."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

CONFIGURATION = Path(__file__).parent.parent.parent / "deploy" / "nginx.conf"
CERTIFY = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost "
    "-addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"
)


def free_ports(number: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in sockets]


def find_nginx() -> str:
    """The nginx to use: NGINX if set, else the one on the path."""
    found = os.environ.get("NGINX") or shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None and "CI" not in os.environ:
        pytest.skip("no nginx on this machine; name one with NGINX=/path")
    return found or "nginx"


class Program:
    """A process that says on standard error when it is up."""

    def __init__(self, command: Sequence[str], words: str) -> None:
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace"
        )
        self._words = words
        self._said: list[str] = []
        self._up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self._said.append(line)
                if self._words in line:
                    self._up.set()
        self._up.set()

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self.process.poll() is None

    def wait(self) -> None:
        """Wait until it is up."""
        assert self._up.wait(240)  # several may be compiling at the same time
        assert self.running, "".join(self._said)

    def end(self, number: int) -> None:
        """Send a signal and wait until it is gone."""
        self.process.send_signal(number)
        self.process.wait(30)
        self._reader.join(30)


class Proxy:
    """nginx by deploy/nginx.conf: only addresses and folders are others, and what an older nginx does not know."""

    def __init__(self, folder: Path, upstreams: Sequence[int]) -> None:
        self._folder = folder
        self._program = find_nginx()
        self.plain_port, self.port = free_ports(2)
        self.url = f"https://localhost:{self.port}"
        (folder / "nginx.conf").write_text(self._configuration(upstreams))
        subprocess.run(CERTIFY.split(), cwd=folder, capture_output=True, check=True)

    def _configuration(self, upstreams: Sequence[int]) -> str:
        listen = f"listen 127.0.0.1:{self.port} ssl"
        changes = {
            " /tmp/": f" {self._folder}/",
            "/etc/nginx/tls/": f"{self._folder}/",
            "access_log /dev/stdout": f"access_log {self._folder}/access.log",
            "error_log /dev/stderr crit": "error_log /dev/stderr notice",
            "listen 8080": f"listen 127.0.0.1:{self.plain_port}",
            "listen 8443 ssl": listen,
            "server soliloquy:8000 resolve max_fails=0;": "".join(
                f"server 127.0.0.1:{upstream} max_fails=0; " for upstream in upstreams
            ),
        }
        version = subprocess.run([self._program, "-v"], capture_output=True, text=True, check=True).stderr
        if [int(part) for part in re.findall(r"[0-9]+", version)[:3]] < [1, 25, 1]:
            changes |= {"http2 on;": "", f"{listen};": f"{listen} http2;"}
        text = CONFIGURATION.read_text()
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        return text

    def __enter__(self) -> "Proxy":
        files = ["-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        self._running = Program([self._program, *files, "-g", "daemon off;"], "start worker process")
        self._running.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.end(signal.SIGQUIT if error[0] is None else signal.SIGTERM)

    def trust(self) -> ssl.SSLContext:
        """What a client needs to know its certificate."""
        return ssl.create_default_context(cafile=self._folder / "cert.pem")

    def client(self, address: str = "127.0.0.1") -> httpx.Client:
        """A client, at an address of its own."""
        transport = httpx.HTTPTransport(verify=self.trust(), local_address=address)
        return httpx.Client(base_url=self.url, transport=transport, timeout=30)

    def log(self) -> list[dict[str, Any]]:
        """What was asked, and which upstreams were tried; complete once nginx has ended."""
        return [json.loads(line) for line in (self._folder / "access.log").read_text().splitlines()]
