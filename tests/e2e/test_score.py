"""`POST /score`, asked as clients ask."""

import math
import threading
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from app.serving.request_handle import RequestHandle
from model.generation.sequence import TextSequence
from tests.conftest import PATIENCE, LiveServer, ask_and_leave
from tests.tiny import VOCABULARY

SAMPLING = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.01}


def ask(server: LiveServer, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/score", json=fields, timeout=60)


@pytest.mark.parametrize(("prompt", "first"), [("ROMEO:", 0), ("", 37), ("what light through yonder window", 199)])
def test_a_written_text_is_scored_as_it_was_told(server: LiveServer, prompt: str, first: int) -> None:
    fields = {"prompt": prompt, "alternatives": 7} | SAMPLING
    length = {"max_new_tokens": 200, "seed": 5, "details": True, "stream": False}
    [sample] = httpx.post(f"{server.url}/generate", json=fields | length).json()["samples"]
    answer = ask(server, **fields, text=sample["text"], first=first)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert list(body) == ["checkpoint", "numerics", "characters", "chars", "bits_per_character"]
    assert body["chars"] == sample["chars"][first:]
    assert body["characters"] == 200 - first
    assert body["numerics"] == "cpu-int8"
    assert body["checkpoint"] == httpx.get(f"{server.url}/info").json()["checkpoint"]


def test_bits_are_the_mean_surprise_of_what_is_told(server: LiveServer) -> None:
    body = ask(server, text="But soft! what light", first=9, alternatives=0).json()
    assert "".join(one["char"] for one in body["chars"]) == " what light"
    assert all(one["alternatives"] == [] for one in body["chars"])
    surprise = [-math.log2(one["prob"]) for one in body["chars"]]
    assert body["bits_per_character"] == pytest.approx(sum(surprise) / 11, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"text": ""}, "text", "at least 1"),
        ({"text": "a" * 16_385}, "text", "at most 16384"),
        ({"text": None}, "text", "valid string"),
        ({"prompt": "a" * 16_385}, "prompt", "at most 16384"),
        ({"first": -1}, "first", "not -1"),
        ({"first": 3}, "first", "3 is beyond the text; its last character is 2"),
        ({"first": 10**30}, "first", "is beyond the text"),
        ({"alternatives": 1001}, "alternatives", "not 1001"),
        ({"temperature": -1}, "temperature", "not -1"),
        ({"top_p": -0.1}, "top_p", "not -0.1"),
        ({"seed": 1}, "seed", "not a field of this request"),
    ],
)
def test_bad_input_is_refused_by_name(server: LiveServer, changes: dict[str, Any], field: str, words: str) -> None:
    answer = ask(server, **({"text": "abc"} | changes))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert words in answer.json()["detail"]
    assert ask(server).json()["errors"] == [{"field": "text", "message": "Field required, not {}"}]


@pytest.mark.parametrize("field", ["prompt", "text"])
def test_unknown_characters_are_named(server: LiveServer, field: str) -> None:
    answer = ask(server, **({"text": "abc"} | {field: "ma\u00f1ana 日"}))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == field
    assert answer.json()["characters"] == [
        {"character": "ñ", "position": 2, "replacement": "n"},
        {"character": "日", "position": 7, "replacement": "?"},
    ]


def test_a_client_that_drops_frees_its_slot(server: LiveServer) -> None:
    handles: list[RequestHandle] = []

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handles.append(type(server.engine).submit(server.engine, sequences))
        return handles[-1]

    server.engine.submit = submit  # type: ignore[method-assign]
    ask_and_leave(server, "/score", {"text": "a" * 16_000})
    server.gate.open()
    assert handles[0].released.wait(PATIENCE)
    assert len(handles[0].sequences[0].written) < 16_000
    assert server.engine.generator.free_slots == 32


def test_the_longest_text_with_all_alternatives_leaves_the_server_to_others(server: LiveServer) -> None:
    answers: list[httpx.Response] = []
    fields = {"text": "ab" * 2048, "alternatives": 1000}
    thread = threading.Thread(target=lambda: answers.append(ask(server, **fields)))
    thread.start()
    probes = 0
    while thread.is_alive():
        assert httpx.get(f"{server.url}/health/live").status_code == 200
        probes += 1
    assert probes > 3
    body = answers[0].json()
    assert body["characters"] == 4096
    assert {len(one["alternatives"]) for one in body["chars"]} == {len(VOCABULARY)}


def test_a_score_takes_a_place_in_the_queue(server: LiveServer) -> None:
    """With 32 texts held in their slots, 4 scores wait and the fifth is refused."""
    gate = server.gate
    engine = server.engine
    gate.may_pass = lambda: bool(engine._waiting and engine.generator.free_slots)
    gate.close()
    texts = [
        threading.Thread(
            target=httpx.post,
            args=(f"{server.url}/generate",),
            kwargs={"json": {"num_samples": 16, "max_new_tokens": 3}},
        )
        for _ in range(2)
    ]
    scores = [threading.Thread(target=ask, args=(server,), kwargs={"text": "abc"}) for _ in range(4)]
    for thread in texts:
        thread.start()
    while engine._free:
        with gate.changed:
            gate.changed.notify_all()
    for thread in scores:
        thread.start()
    while len(engine._waiting) < 4:
        gate.waiting.wait(0.01)
    answer = ask(server, text="abc")
    gate.open()
    for thread in [*texts, *scores]:
        thread.join(30)
        assert not thread.is_alive()
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


def test_the_api_documents_every_field(server: LiveServer) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    models = document["components"]["schemas"]
    for name in ("GenerateRequest", "ScoreRequest", "Score", "Character", "Alternative"):
        for field, schema in models[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"
    for method in ("get", "post"):
        headers = {one["name"]: one for one in document["paths"]["/generate"][method]["parameters"]}
        assert headers["Last-Event-ID"]["in"] == "header"
        assert headers["Last-Event-ID"]["description"]
