"""Which variables are settings, which look like one, and which only begin with the same word."""

import ast
import http.server
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import environment
from app.settings import ServerSettings
from model.errors import InputError

ROOT = Path(__file__).parents[2]
SETTINGS = ServerSettings.model_fields
KUBERNETES = {
    "SOLILOQUY_SERVICE_HOST": "10.43.7.9",
    "SOLILOQUY_SERVICE_PORT": "8000",
    "SOLILOQUY_SERVICE_PORT_HTTP": "8000",
    "SOLILOQUY_PORT": "tcp://10.43.7.9:8000",
    "SOLILOQUY_PORT_8000_TCP": "tcp://10.43.7.9:8000",
    "SOLILOQUY_PORT_8000_TCP_PROTO": "tcp",
    "SOLILOQUY_PORT_8000_TCP_PORT": "8000",
    "SOLILOQUY_PORT_8000_TCP_ADDR": "10.43.7.9",
    "SOLILOQUY_METRICS_SERVICE_HOST": "10.43.7.10",
    "SOLILOQUY_METRICS_PORT": "udp://10.43.7.10:9",
    "SOLILOQUY_METRICS_PORT_9_UDP_ADDR": "10.43.7.10",
}


def test_a_service_of_that_name_sets_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Kubernetes Service named soliloquy injects SOLILOQUY_PORT=tcp://…, which the server refused as its port. It
    goes on with the default and says so, of that variable alone.
    """
    for name, value in KUBERNETES.items():
        monkeypatch.setenv(name, value)
    assert ServerSettings().port == environment.port_of(os.environ) == 8000
    [said] = environment.remarks(KUBERNETES, SETTINGS)
    assert said.startswith("SOLILOQUY_PORT=tcp://10.43.7.9:8000 is the address of a Kubernetes Service, not a port")
    monkeypatch.setenv("SOLILOQUY_PORT", "9000")
    assert ServerSettings().port == environment.port_of(os.environ) == 9000


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
@pytest.mark.parametrize("place", ["environment", "file"])
def test_a_blank_variable_is_as_good_as_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blank: str, place: str
) -> None:
    """`SOLILOQUY_SLOTS=` was refused as no number; `SOLILOQUY_HOST=` opened every network of the machine."""
    monkeypatch.chdir(tmp_path)
    names = [f"SOLILOQUY_{name.upper()}" for name in SETTINGS if name not in environment.NEVER_BLANK]
    if place == "file":
        Path(".env").write_text("".join(f"{name}={blank}\n" for name in names))
    else:
        for name in names:
            monkeypatch.setenv(name, blank)
    assert ServerSettings() == ServerSettings.model_construct()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SOLILOQUY_SLOT", "SOLILOQUY_SLOTS"),
        ("soliloquy_rate_limits", "SOLILOQUY_RATE_LIMIT"),
        ("SOLILOQUY_TRUSTED_HOST", "SOLILOQUY_TRUSTED_HOSTS"),
        ("SOLILOQUY_CORS_ORIGIN", "SOLILOQUY_CORS_ORIGINS"),
        ("SOLILOQUYPORT", "SOLILOQUY_PORT"),
        ("SOLILOQY_CHECKPOINT", "SOLILOQUY_CHECKPOINT"),
        ("SOLILOQUY_WEATHER_OF_TOMORROW_XYZZY", None),
    ],
)
def test_a_near_miss_is_named_with_what_was_meant(name: str, meant: str | None) -> None:
    [said] = environment.remarks({name: "1"}, SETTINGS)
    assert said.startswith(f"{name.upper()} is not a setting and has no effect")
    assert said.endswith(f"did you mean {meant}?" if meant else "no effect")
    assert environment.key_like({name: "1"}, SETTINGS) is None


@pytest.mark.parametrize(
    "name",
    [
        *("SOLILOQUY_API_KEY", "SOLILOQUY_APIKEYS", "SOLILOQUY_KEYS", "SOLILOQUY_KEY_FILE", "soliloquy_api_key"),
        *("SOLILOQY_API_KEYS", "SOLILOQUY_AUTH_TOKEN", "SOLILOQUY_PASSWORD", "SOLILOQUYAPIKEYS"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_keys_that_nobody_would_ask_for_stop_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, place: str
) -> None:
    """With SOLILOQUY_API_KEY set, a server stayed open without a word: the setting is called API_KEYS."""
    monkeypatch.chdir(tmp_path)
    if place == "file":
        Path(".env").write_text(f"{name}=secret\n")
    else:
        monkeypatch.setenv(name, "secret")
    with pytest.raises(InputError, match="did you mean SOLILOQUY_API_KEYS") as caught:
        ServerSettings()
    assert caught.value.field == name.upper()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "PORT", "HOST", "API_KEYS", "OPENAI_API_KEY", "OTEL_EXPORTER_OTLP_ENDPOINT", "SOLO_PORT"),
        *("SOLILOQUY_PUBLISH", "SOLILOQUY_SAMPLE_SEED", "SOLILOQUY_MIN_REPLICAS", "SOLILOQUY_MUTATIONS"),
    ],
)
def test_what_is_somebody_elses_is_left_alone(name: str) -> None:
    assert environment.remarks({name: "1"}, SETTINGS) == []
    assert environment.key_like({name: "1"}, SETTINGS) is None


def test_the_prefixes_of_all_programs_are_known() -> None:
    found = set()
    paths: list[Path] = []
    for package in ("app", "model", "training", "benchmarks", "engine"):
        paths += ROOT.glob(f"{package}/*.py")
    for path in paths:
        found |= set(re.findall(r'settings_config\("[\w.]+", "SOLILOQUY_(\w+)_"', path.read_text()))
    assert {name.lower() for name in found} == set(environment.OTHER_PROGRAMS)


def test_the_health_check_starts_in_no_time() -> None:
    """It runs every five seconds: what it imports is of the standard library alone."""
    for name in ("health", "environment"):
        tree = ast.parse((ROOT / "app" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert module == "app.environment" or module.split(".")[0] in sys.stdlib_module_names


class Answering(http.server.BaseHTTPRequestHandler):
    """Stands for a server whose readiness is `status`."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health/ready" else 404)
        self.end_headers()

    def log_message(self, *ignored: object) -> None:
        pass


@pytest.fixture
def ready() -> Iterator[int]:
    with http.server.HTTPServer(("127.0.0.1", 0), Answering) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def check_health(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.lower().startswith("soliloquy")}
    command = [sys.executable, "-m", "app.health"]
    return subprocess.run(command, cwd=ROOT, env=kept | variables, capture_output=True, text=True, check=False)


def test_the_health_check_asks_the_port_of_the_server(ready: int, monkeypatch: pytest.MonkeyPatch) -> None:
    port = str(ready)
    assert check_health(SOLILOQUY_PORT=port, http_proxy="http://127.0.0.1:9").returncode == 0
    assert check_health(soliloquy_port=f" {port} ").returncode == 0
    monkeypatch.setattr(Answering, "status", 503)
    refused = check_health(SOLILOQUY_PORT=port)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    wrong = check_health(SOLILOQUY_PORT="many")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
