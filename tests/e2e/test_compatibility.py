"""What users and their programs rely on: flags, fields, events, metrics, files, and the very characters of texts.

`recorded.json` holds them. A name or a text that changes there breaks somebody's script, link or receipt: change
the file by hand, and say so in the changelog.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse
from pydantic_settings import BaseSettings

from app.settings import ServerSettings
from model.sample import SampleSettings
from model.verify import VerifySettings
from tests.conftest import LiveServer
from tests.e2e.conftest import BUNDLED, Opened
from training.average import AverageSettings
from training.distill import DistillSettings
from training.draft import DraftSettings
from training.evaluate import EvaluateSettings
from training.import_nanogpt import ImportSettings
from training.index import IndexSettings
from training.plot import PlotSettings
from training.prepare import PrepareSettings
from training.settings import TrainSettings

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "recorded.json").read_text(encoding="utf-8"))
COMMANDS: dict[str, type[BaseSettings]] = {
    "app": ServerSettings,
    "model.sample": SampleSettings,
    "model.verify": VerifySettings,
    "training.average": AverageSettings,
    "training.distill": DistillSettings,
    "training.draft": DraftSettings,
    "training.evaluate": EvaluateSettings,
    "training.import_nanogpt": ImportSettings,
    "training.index": IndexSettings,
    "training.plot": PlotSettings,
    "training.prepare": PrepareSettings,
    "training.train": TrainSettings,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "ROMEO:", "seed": 1337, "max_new_tokens": 300},
    "samples and stops": {
        "prompt": "First Citizen:\n",
        "seed": 7,
        "num_samples": 3,
        "stop": ["\n\n"],
        "max_new_tokens": 400,
    },
    "filters": {
        "prompt": "JULIET:\nO ",
        "seed": 2**53 - 1,
        "temperature": 1.3,
        "top_k": 12,
        "top_p": 0.9,
        "min_p": 0.02,
        "max_new_tokens": 300,
    },
    "greedy past the window": {"prompt": "", "seed": 0, "temperature": 0, "max_new_tokens": 600},
}


def flags_of(settings: type[BaseSettings]) -> dict[str, str]:
    """Each flag of a command with its default."""
    return {name: repr(field.default) for name, field in settings.model_fields.items()}


def keys_of(value: Any, found: set[str], prefix: str = "") -> set[str]:
    """The paths of all names in a JSON object; those of a list's members are told once."""
    if isinstance(value, dict):
        for name, inner in value.items():
            found.add(f"{prefix}{name}")
            keys_of(inner, found, f"{prefix}{name}.")
    elif isinstance(value, list):
        for inner in value:
            keys_of(inner, found, prefix)
    return found


def schemas_of(document: dict[str, Any]) -> dict[str, list[str]]:
    """The fields of each schema in an OpenAPI document."""
    schemas = document["components"]["schemas"]
    return {name: sorted(schema.get("properties", {})) for name, schema in sorted(schemas.items())}


def operations_of(document: dict[str, Any]) -> dict[str, list[str]]:
    """The parameters and statuses of each operation in an OpenAPI document."""
    found = {}
    for path, methods in sorted(document["paths"].items()):
        for method, operation in sorted(methods.items()):
            parameters = [parameter["name"] for parameter in operation.get("parameters", ())]
            found[f"{method.upper()} {path}"] = sorted(parameters) + sorted(operation["responses"])
    return found


def metrics_of(text: str) -> list[str]:
    """The names of all metrics in Prometheus' text format, with the names of their labels."""
    names = set()
    for line in text.splitlines():
        if match := re.match(r"(\w+)(\{[^}]*\})? ", line):
            labels = ",".join(re.findall(r'(\w+)="', match[2] or ""))
            names.add(f"{match[1]}{{{labels}}}")
    return sorted(names)


def events_of(url: str) -> dict[str, list[str]]:
    """The names in each kind of event of a stream that tells all it can."""
    body = {"prompt": "ROMEO:", "seed": 1, "max_new_tokens": 200, "details": True, "report": True}
    found: dict[str, set[str]] = {}
    with httpx.Client() as client, connect_sse(client, "POST", f"{url}/generate", json=body) as source:
        for event in source.iter_sse():
            keys_of(event.json(), found.setdefault(event.event, set()))
    return {name: sorted(keys) for name, keys in sorted(found.items())}


def names_while_waiting(live: LiveServer) -> list[str]:
    """The names in the event that tells of a place in the queue of a server with one slot."""
    live.gate.close()
    body = {"max_new_tokens": 5}
    url = f"{live.url}/generate"
    with httpx.Client() as client, connect_sse(client, "POST", url, json=body) as writing:
        assert next(writing.iter_sse()).event == "start"
        with connect_sse(client, "POST", url, json=body) as source:
            events = source.iter_sse()
            assert next(events).event == "start"
            waiting = next(events)
            assert waiting.event == "waiting"
            assert waiting.json()["place"] == 1
            live.gate.open()
            assert [event.event for event in events][-1] == "done"
    return sorted(keys_of(waiting.json(), set()))


def texts_of(url: str, body: dict[str, Any]) -> list[str]:
    """The SHA-256 of each sample that a request is answered with."""
    answer = httpx.post(f"{url}/generate", json={**body, "stream": False}).json()
    return [sample["sha256"] for sample in answer["samples"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_their_flags_and_defaults(command: str) -> None:
    assert flags_of(COMMANDS[command]) == RECORDED["flags"][command]


def test_the_api_has_its_operations_fields_and_answers(bundled_server: LiveServer) -> None:
    document = httpx.get(f"{bundled_server.url}/openapi.json").json()
    assert operations_of(document) == RECORDED["operations"]
    assert schemas_of(document) == RECORDED["schemas"]
    info = httpx.get(f"{bundled_server.url}/info").json()
    assert sorted(info) == RECORDED["info"]


def test_events_have_their_names(bundled_server: LiveServer, serve: Callable[..., Opened]) -> None:
    found = events_of(bundled_server.url)
    with serve(slots=1) as live:
        found["waiting"] = names_while_waiting(live)
    assert found == RECORDED["events"]


def test_metrics_have_their_names(server: LiveServer) -> None:
    httpx.post(f"{server.url}/generate", json={"max_new_tokens": 5})
    assert metrics_of(httpx.get(f"{server.url}/metrics").text) == RECORDED["metrics"]


def test_the_bundled_checkpoint_has_its_files() -> None:
    assert sorted(path.name for path in BUNDLED.iterdir()) == RECORDED["files"]


@pytest.mark.parametrize("name", REQUESTS)
def test_texts_are_the_same_to_the_character(bundled_server: LiveServer, name: str) -> None:
    assert texts_of(bundled_server.url, REQUESTS[name]) == RECORDED["texts"][name]
