"""What a client meets: a real uvicorn on loopback, asked as clients ask."""

import hashlib
import json
import socket
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse, connect_sse

from app.serving import request_handle as handles
from app.serving.request_handle import RequestHandle
from model.checkpoint import read_checkpoint
from model.cli import run
from model.generation.sequence import TextSequence
from model.verify import VerifySettings, verify
from tests.conftest import PATIENCE, LiveServer, ask_and_leave
from tests.tiny import VOCABULARY, tiny_generator

ASKED = {"prompt": "ROMEO:", "max_new_tokens": 120, "seed": 7, "num_samples": 2}


def expected(prompt: str, seed: int, length: int, sample: int = 0) -> str:
    """The text by the model alone."""
    stream = TextSequence(VOCABULARY, VOCABULARY.encode(prompt), seed=seed, sample=sample, max_new_tokens=length)
    return "".join(chunk.text for chunk in tiny_generator().write(stream))


def post(server: LiveServer, **fields: Any) -> list[ServerSentEvent]:
    with httpx.Client() as client, connect_sse(client, "POST", f"{server.url}/generate", json=fields) as source:
        assert source.response.headers["cache-control"] == "no-store"
        assert source.response.headers["x-accel-buffering"] == "no"
        return list(source.iter_sse())


def texts_of(events: list[ServerSentEvent], samples: int = 1) -> list[str]:
    """Each sample's text, with every `index` checked."""
    texts = ["" for _ in range(samples)]
    for event in events:
        if event.event == "text":
            data = event.json()
            assert data["index"] == len(texts[data["sample"]])
            texts[data["sample"]] += data["text"]
            come = event.id.split(":")[-1]
            assert int(come.split(",")[data["sample"]]) == len(texts[data["sample"]])
    return texts


def test_a_stream_starts_writes_ends_and_is_done(server: LiveServer, folder: Path) -> None:
    events = post(server, **ASKED)
    names = [event.event for event in events]
    assert names[0] == "start"
    assert names[1] == "text"
    assert names[-1] == "done"
    assert set(names[1:-1]) == {"text", "end"}
    start = events[0].json()
    assert start["seed"] == 7
    assert start["checkpoint"] == read_checkpoint(folder).identity[:12]
    assert start["parameters"]["top_k"] == len(VOCABULARY)  # 200, clamped
    texts = texts_of(events, 2)
    assert texts == [expected("ROMEO:", 7, 120, sample) for sample in (0, 1)]
    assert texts[0] != texts[1]
    ends = [event.json() for event in events if event.event == "end"]
    assert ends == [{"sample": i, "finish_reason": "length"} for i in (0, 1)]
    done = events[-1].json()
    assert [one["sha256"] for one in done["samples"]] == [hashlib.sha256(t.encode()).hexdigest() for t in texts]
    assert [one["characters"] for one in done["samples"]] == [120, 120]
    assert done["timing"]["first_character_seconds"] <= done["timing"]["total_seconds"]


def test_one_json_object_has_the_same_text(server: LiveServer) -> None:
    streamed = texts_of(post(server, **ASKED), 2)
    by_field = httpx.post(f"{server.url}/generate", json=ASKED | {"stream": False})
    by_header = httpx.post(f"{server.url}/generate", json=ASKED, headers={"accept": "application/json"})
    for answer in (by_field, by_header):
        assert answer.status_code == 200
        body = answer.json()
        assert [sample["text"] for sample in body["samples"]] == streamed
        assert body.keys() == {"id", "checkpoint", "seed", "parameters", "samples", "timing", "receipt"}
        assert body["seed"] == 7


def test_the_same_stream_by_url(server: LiveServer) -> None:
    with httpx.Client() as client, connect_sse(client, "GET", f"{server.url}/generate", params=ASKED) as source:
        assert texts_of(list(source.iter_sse()), 2) == texts_of(post(server, **ASKED), 2)


def test_a_seed_is_drawn_returned_and_gives_the_text_again(server: LiveServer) -> None:
    first = httpx.post(f"{server.url}/generate", json={"stream": False, "max_new_tokens": 40}).json()
    again = {"stream": False, "max_new_tokens": 40, "seed": first["seed"]}
    second = httpx.post(f"{server.url}/generate", json=again).json()
    assert first["samples"] == second["samples"]
    other = httpx.post(f"{server.url}/generate", json={"stream": False, "max_new_tokens": 40}).json()
    assert other["seed"] != first["seed"]


def test_frames_are_one_line_of_ascii(server: LiveServer) -> None:
    raw = httpx.post(f"{server.url}/generate", json={"prompt": "\n", "stop": ["\n"]}).content
    assert raw.isascii()
    for frame in raw.decode().strip().split("\n\n"):
        lines = frame.split("\n")
        assert sum(line.startswith("data: ") for line in lines) == 1
        json.loads(next(line for line in lines if line.startswith("data: ")).removeprefix("data: "))


def test_stop_strings_end_a_sample(server: LiveServer) -> None:
    whole = expected("ROMEO:", 7, 120)
    stop = whole[50:53]
    [sample] = httpx.post(
        f"{server.url}/generate", json=ASKED | {"num_samples": 1, "stop": [stop], "stream": False}
    ).json()["samples"]
    assert sample["finish_reason"] == "stop"
    assert sample["text"] == whole[: whole.index(stop)]


def chars_of(events: list[Any]) -> list[dict[str, Any]]:
    """The details of all characters in a stream's events."""
    chars: list[dict[str, Any]] = []
    for event in events:
        if event.event == "text":
            chars += event.json()["chars"]
    return chars


def test_details_tell_how_sure_the_model_was(server: LiveServer) -> None:
    events = post(server, prompt="R", max_new_tokens=30, seed=1, details=True)
    chars = chars_of(events)
    assert "".join(one["char"] for one in chars) == texts_of(events)[0]
    for one in chars:
        likeliest = one["alternatives"][0]
        assert len(one["alternatives"]) == 5
        assert 0 <= one["prob"] <= likeliest["prob"] <= 1
        assert 0 < one["final"] <= 1
        assert one["entropy"] >= 0
        if one["rank"] == 1:
            assert likeliest == {key: one[key] for key in ("char", "prob", "final")}


@pytest.mark.parametrize(("requested", "resolved"), [(0, 0), (1, 1), (1000, len(VOCABULARY))])
def test_as_many_alternatives_as_are_asked_for(server: LiveServer, requested: int, resolved: int) -> None:
    events = post(server, max_new_tokens=20, seed=1, details=True, alternatives=requested, top_k=4)
    assert events[0].json()["parameters"]["alternatives"] == resolved
    chars = chars_of(events)
    assert [len(one["alternatives"]) for one in chars] == [resolved] * 20
    whole = httpx.post(
        f"{server.url}/generate",
        json={
            "max_new_tokens": 20,
            "seed": 1,
            "details": True,
            "alternatives": requested,
            "top_k": 4,
            "stream": False,
        },
    ).json()
    assert whole["samples"][0]["chars"] == chars
    assert "alternatives" not in whole["receipt"]["parameters"]
    if resolved == len(VOCABULARY):
        for one in chars:
            assert sum(other["prob"] for other in one["alternatives"]) == pytest.approx(1, abs=1e-4)
            assert sum(other["final"] > 0 for other in one["alternatives"]) == 4


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("seed", [{}, {"seed": 7}])
def test_a_stream_that_was_cut_goes_on(
    server: LiveServer, method: str, seed: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who leaves after any event gets the rest, whoever wrote the beginning."""
    monkeypatch.setattr(handles, "FRAME_SECONDS", 0.001)
    fields = {"prompt": "ROMEO:", "max_new_tokens": 120, "num_samples": 2, "stop": "zq"} | seed
    body = {"params": fields} if method == "GET" else {"json": fields | {"stop": ["zq"]}}

    def read(client: httpx.Client, headers: dict[str, str], most: int) -> list[ServerSentEvent]:
        with connect_sse(client, method, f"{server.url}/generate", headers=headers, **body) as source:
            return list(islice(source.iter_sse(), most))

    with httpx.Client() as client:
        for cut in range(2, 8):
            events = read(client, {}, cut)
            last_id = next(event.id for event in reversed(events) if event.event == "text")
            rest = read(client, {"Last-Event-ID": last_id}, 10_000)
            drawn = events[0].json()["seed"]
            assert rest[0].json()["seed"] == drawn
            whole = [expected("ROMEO:", drawn, 120, sample).split("zq")[0] for sample in (0, 1)]
            assert texts_of(events + rest, 2) == whole
            digests = [hashlib.sha256(text.encode()).hexdigest() for text in whole]
            assert [one["sha256"] for one in rest[-1].json()["samples"]] == digests


def test_a_json_object_is_never_resumed(server: LiveServer) -> None:
    headers = {"Last-Event-ID": "nonsense"}
    answer = httpx.post(f"{server.url}/generate", json=ASKED | {"stream": False}, headers=headers)
    assert answer.status_code == 200
    assert len(answer.json()["samples"][0]["text"]) == 120


def test_an_empty_prompt_is_a_line_break(server: LiveServer) -> None:
    assert texts_of(post(server, prompt="", seed=3, max_new_tokens=20)) == [expected("\n", 3, 20)]


def test_32_clients_stream_at_once_then_a_queue_then_503(server: LiveServer) -> None:
    """Held between steps: 32 write, 4 wait, the 37th is refused; then all 36 get exactly their text."""
    engine = server.engine
    gate = server.gate
    gate.may_pass = lambda: bool(engine._waiting and engine.generator.free_slots)

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handle = type(engine).submit(engine, sequences)
        with gate.changed:
            gate.changed.notify_all()
        return handle

    engine.submit = submit  # type: ignore[method-assign]
    gate.close()
    texts: dict[int, str] = {}

    async def one(client: httpx.AsyncClient, seed: int, admitted: anyio.Event) -> None:
        fields = {"prompt": "JULIET:", "seed": seed, "max_new_tokens": 200}
        async with aconnect_sse(client, "POST", f"{server.url}/generate", json=fields) as source:
            assert source.response.status_code == 200
            admitted.set()
            [texts[seed]] = texts_of([event async for event in source.aiter_sse()])

    async def all_of_them() -> httpx.Response:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client, anyio.create_task_group() as group:
            for seed in range(36):
                admitted = anyio.Event()
                group.start_soon(one, client, seed, admitted)
                await admitted.wait()
            refused = await client.post(f"{server.url}/generate", json={"prompt": "x"})
            gate.open()
        return refused

    refused = anyio.run(all_of_them)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["content-type"] == "application/problem+json"
    assert texts == {seed: expected("JULIET:", seed, 200) for seed in range(36)}
    assert max(map(len, gate.forwarded)) == 32


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_drops_frees_its_slot(server: LiveServer, stream: bool) -> None:
    handles: list[RequestHandle] = []

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handles.append(type(server.engine).submit(server.engine, sequences))
        return handles[-1]

    server.engine.submit = submit  # type: ignore[method-assign]
    fields = {"max_new_tokens": 100_000, "stream": stream}
    if stream:
        with httpx.Client() as client, connect_sse(client, "POST", f"{server.url}/generate", json=fields) as source:
            assert next(source.iter_sse()).event == "start"
    else:
        ask_and_leave(server, "/generate", fields)
        server.gate.open()
    assert handles[0].released.wait(PATIENCE)
    assert len(handles[0].sequences[0].written) < 100_000
    assert server.engine.generator.free_slots == 32


def test_a_client_that_never_reads_is_dropped(impatient_server: LiveServer) -> None:
    """Its text first fills the buffers of both machines; then its slots are freed, and the server goes on."""
    handles: list[RequestHandle] = []
    engine = impatient_server.engine

    def submit(sequences: Sequence[TextSequence]) -> RequestHandle:
        handles.append(type(engine).submit(engine, sequences))
        return handles[-1]

    engine.submit = submit  # type: ignore[method-assign]
    body = json.dumps({"max_new_tokens": 100_000, "details": True, "num_samples": 16}).encode()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    url = httpx.URL(impatient_server.url)
    with socket.create_connection((url.host, url.port or 0)) as client:
        client.sendall(f"{head}\r\n\r\n".encode() + body)
        assert client.recv(1)  # the answer has begun; nothing more is read
        assert handles[0].released.wait(60)
    assert len(handles[0].sequences[0].written) < 100_000
    assert httpx.get(f"{impatient_server.url}/health/ready").status_code == 200


def test_an_answers_receipt_verifies(server: LiveServer, folder: Path, tmp_path: Path) -> None:
    answer = httpx.post(f"{server.url}/generate", json=ASKED | {"stream": False}).json()
    assert post(server, **ASKED)[-1].json()["receipt"] == answer["receipt"]
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    assert run(VerifySettings, verify, [str(tmp_path / "answer.json"), f"--checkpoint={folder}"]) == 0


def test_the_model_card_and_the_health(server: LiveServer) -> None:
    card = httpx.get(f"{server.url}/info").json()
    assert card["block_size"] == 16
    assert card["vocabulary_size"] == len(card["vocabulary"]) == len(VOCABULARY)
    assert card["numerics"] == "cpu-int8"
    assert card["val_loss"] == 4.0
    assert card["positions"] == "rotary"
    assert card["replacements"]["’"] == "'"
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    server.engine.drain(60)
    assert httpx.get(f"{server.url}/health/ready").status_code == 503
    refused = httpx.post(f"{server.url}/generate", json={})
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
