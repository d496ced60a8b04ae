"""Requests that nobody would send by accident: whatever comes is answered, and by an answer that is described.

SOLILOQUY_FUZZ_CASES=10000 makes more of them.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import SecretStr
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from app.main import create_app
from app.security import rate_limit as limits
from app.serving import request_handle as handles
from app.settings import ServerSettings
from model.checkpoint import write_checkpoint
from tests.conftest import THREADS, LiveServer
from tests.leaks import check_answer
from tests.tiny import VOCABULARY, tiny_checkpoint, tiny_draft, tiny_folder, tiny_index

CASES = int(os.environ.get("SOLILOQUY_FUZZ_CASES", "250"))
MOST_CHARACTERS = 20  # that a case may have written
Operation = APIOperation[Any, Any, Any, Any]
LENGTHS = {"/generate": "max_new_tokens", "/snapshots": "max_new_tokens", "/v1/completions": "max_tokens"}
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
REFUSALS = ["400", "404", "413", "414", "422", "431"]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with all that one can have: guesses, an index, snapshots; and room for all who wait."""
    folder = tmp_path_factory.mktemp("fuzz") / "tiny"
    folder.mkdir()
    write_checkpoint(folder, replace(tiny_checkpoint(), draft=tiny_draft(), index=tiny_index()))
    for step in (0, 9):
        tiny_folder(folder.with_name("tiny-snapshots") / f"{step:06d}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handles, "FRAME_SECONDS", 0)
        with LiveServer(
            create_app(ServerSettings(checkpoint=folder, device="cpu", threads=THREADS, queue_size=1000))
        ) as live:
            yield live


def folder_of(live: LiveServer) -> Path:
    """Where its checkpoint is."""
    folder: Path = live.app.state.service.settings.checkpoint
    return folder


def speak(text: str) -> str:
    """The text in characters that the model knows, but for one text in eight."""
    known = VOCABULARY.characters
    return "".join(known[ord(one) % len(known)] for one in text) if len(text) % 8 != 7 else text


def tame(case: schemathesis.Case[Any]) -> None:
    """Keep a case short; and what fits the description is to get further than to the first unknown character."""
    fits = case.meta is None or case.meta.generation.mode.is_positive
    fields = case.query
    if case.method == "POST":
        fields = case.body if isinstance(case.body, dict) else {}
    name = LENGTHS.get(case.path, "")
    length = fields.get(name, 500)
    if name and isinstance(length, int) and MOST_CHARACTERS < length <= 100_000:
        fields[name] = 1 + length % MOST_CHARACTERS
    for name, value in fields.items() if fits else ():
        if isinstance(value, str):
            fields[name] = "tiny" if name == "model" and len(value) % 8 != 7 else speak(value)
        elif isinstance(value, list):
            fields[name] = [speak(one) for one in value]
    if fits and len(case.headers.get("Last-Event-ID", "")) % 8 != 7:
        case.headers.pop("Last-Event-ID", None)


def without_own_words(answer: str, case: schemathesis.Case[Any]) -> str:
    """The answer less the model's name that the client gave: Hypothesis takes names from the project's own code."""
    sent = case.body if isinstance(case.body, dict) else case.path_parameters
    name = sent.get("model", sent.get("name"))
    return answer.replace(name, "") if isinstance(name, str) and name else answer


def checks() -> list[schemathesis.CheckFunction]:
    """What is checked of every answer."""
    load_all_checks()
    return cast(list[schemathesis.CheckFunction], [CHECKS.get_one(name) for name in CHECKED])


def described(live: LiveServer) -> list[Operation]:
    """All operations of the API, by the server's own description."""
    config = {"checks": {"negative_data_rejection": {"expected-statuses": REFUSALS}}}
    schema = schemathesis.openapi.from_url(f"{live.url}/openapi.json", config=schemathesis.Config.from_dict(config))
    schema.validate()
    return [one.ok() for one in schema.get_all_operations() if isinstance(one, Ok)]


def some(cases: int) -> settings:
    """So many cases: the same each time, but when more are asked for."""
    return settings(
        max_examples=cases,
        derandomize="SOLILOQUY_FUZZ_CASES" not in os.environ,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def test_every_answer_is_described(live: LiveServer) -> None:
    """Schemathesis makes requests that fit the API's description, and ones that do not in one place or more."""
    operations = described(live)
    alike = [one for one in operations if not (one.body or one.query or one.path_parameters)]  # all their requests
    rounds = []
    for one, mode in product(operations, schemathesis.GenerationMode):
        if mode.is_positive or one.body or one.query:
            rounds.append(one.as_strategy(generation_mode=mode))
    statuses: Counter[tuple[str, int]] = Counter()
    with requests.Session() as session:

        def ask(case: schemathesis.Case[Any]) -> None:
            tame(case)
            answer = case.call(session=session, timeout=60)
            statuses[case.operation.label, answer.status_code] += 1
            case.validate_response(answer, checks=checks())
            check_answer(without_own_words(answer.text, case), folder_of(live))

        for cases in rounds:
            some(max(1, CASES // (len(rounds) - len(alike))))(given(cases)(ask))()
    print(dict(sorted(statuses.items())))
    answered = {label for label, status in statuses if status == 200}
    assert answered == {one.label for one in operations} - {"GET /v1/models/{name}"}
    assert live.engine.idle


def test_a_refused_method_is_told_all_others(live: LiveServer) -> None:
    """`Allow` named POST alone, for Starlette answers with the first route of a path; now with all of them."""
    refused = httpx.put(f"{live.url}/generate")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST")
    assert httpx.post(f"{live.url}/info").headers["allow"] == "GET, HEAD"


def test_refusals_at_the_door_are_described(live: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, and with one that has asked too often."""
    monkeypatch.setattr(limits, "REFUSAL_WAIT", 0)
    guarded = ServerSettings(checkpoint=folder_of(live), device="cpu", api_keys=SecretStr("k"), rate_limit="2/hour")
    statuses: Counter[int] = Counter()
    with LiveServer(create_app(guarded)) as door:

        def ask(case: schemathesis.Case[Any]) -> None:
            tame(case)
            for headers in ({}, {"Authorization": "Bearer k"}):
                answer = case.call(headers=headers, timeout=60)
                statuses[answer.status_code] += 1
                case.validate_response(answer, checks=checks())

        for operation in described(door):
            some(1)(given(operation.as_strategy())(ask))()
    assert statuses[401] == 8
    assert statuses[429] == 4


NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"5e-324", b"-0.0", b"1" * 400, b"9" * 5000)
SEEDS = (2**53, 2**63 - 1, 2**63, 2**64, 10**400, -(2**63))
COUNTS = (b"max_new_tokens", b"num_samples", b"top_k", b"alternatives", b"max_tokens", b"n", b"best_of", b"first")
BODIES = [
    *(b'{"temperature": %s}' % number for number in NUMBERS),
    *(b'{"seed": %d}' % seed for seed in SEEDS),
    *(b'{"%s": %d}' % (name, 10**30) for name in COUNTS),
    *(b'{"%s": %s}' % (name, b"9" * 5000) for name in (b"seed", *COUNTS)),
    b'{"top_k": 1e400}', b'{"top_p": 5e-324, "min_p": 5e-324}', b'{"max_new_tokens": 3.0}', b'{"stream": "false"}',
    b'{"prompt": "\\ud800"}', b'{"\\ud800": 1}', b'{"text": "\\udfff\\ud800"}', b'{"model": "\\ud800"}',
    b'{"stop": ["\\ud800"]}', b'{"prompt": "\xff"}', b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "\0"}',
    b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", '{"prompt": "é"}'.encode("utf-16"), '{"prompt": "é"}'.encode("latin-1"),
    b"[" * 100_000, b"{" * 200_000, b'{"prompt":' * 25_000, b"[" * 950 + b"]" * 950,
    *(b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}" for depth in (900, 950, 960, 961, 970, 990)),
    b'{"x": ' + b'{"y":' * 930 + b"1" + b"}" * 930 + b"}", b'{"a.b": 1, "": 2, "__proto__": {}, "\\u0000": 3}',
    b'{"seed": 1, "seed": -1, "seed": 2}', b'{"prompt": "a", "prompt": 1}', b'{"prompt": "a\nb"}',
    b'{"stop": [[["a"]]]}', b'{"stop": {"0": "a"}}', b'{"prompt": ["a"], "text": ["b"]}', b"{'a': 1}",
    b"", b" ", b"null", b"1", b'"x"', b"[]", b"true", b"{", b"{} {}", b"{}\0", b"\x1f\x8b", gzip.compress(b"{}"),
    json.dumps({f"field{i}": i for i in range(5000)}).encode(), json.dumps({"a" * 10_000: "\x1b[31m"}).encode(),
]  # fmt: skip
TYPES = (
    "application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=", "application/json; charset=utf-16", "application/vnd.api+json",
    "application/", "", "text/event-stream", "application/json, text/plain", "\xff", "a" * 5000,
)  # fmt: skip
QUERIES = [
    "prompt=%", "prompt=%f", "prompt=%ff", "prompt=%00", "prompt=%ed%a0%80", "prompt=%zz", "prompt=+&prompt=%20",
    "%00=%00", "=", "&&;&", *(f"temperature={number}" for number in ("nan", "inf", "-inf", "1e999", "5e-324", "")),
    *(f"seed={seed}" for seed in (*SEEDS, "9" * 5000, "1_0", "%D9%A3", "+1", "0x10", "1.0", "1e3")),
    *(f"top_k={count}" for count in (10**30, "9" * 5000, "null")), "num_samples=" + "9" * 20, "details=maybe",
    "max_new_tokens=" + "1" * 30, "stop=", "&".join(["stop=a"] * 5), "stop=" + "a" * 65, "prompt[0]=a",
    "x" * 20_000, "x=" + "y" * 40_000, "&".join(f"f{i}=1" for i in range(2000)), "stream=0",
    "max_new_tokens=3&max_new_tokens=4",
]  # fmt: skip


def check(answer: httpx.Response, live: LiveServer) -> None:
    """A refusal is a whole problem object, in the form for its path."""
    check_answer(answer.text, folder_of(live))
    if answer.status_code == 200:
        return
    assert answer.status_code in (400, 404, 413, 414, 422)
    problem = json.loads(answer.text, parse_constant=pytest.fail)
    if answer.url.path.startswith("/v1/"):
        assert problem["error"]["message"]
    else:
        assert answer.headers["content-type"] == "application/problem+json"
        assert (problem["status"], problem["type"]) == (answer.status_code, "about:blank")
        assert problem["detail"]


@pytest.mark.parametrize("path", ["/generate", "/score", "/report", "/v1/completions"])
def test_any_body_is_answered(live: LiveServer, path: str) -> None:
    """An object also has what this route needs, so that what is wrong with the rest comes to light."""
    beginnings = {"/generate": b'{"max_new_tokens": 5, ', "/v1/completions": b'{"model": "tiny", '}
    beginning = beginnings.get(path, b'{"text": "a", ')
    with httpx.Client(base_url=live.url, timeout=60) as client:
        for body in BODIES:
            content = beginning + body[1:] if body.startswith(b'{"') else body
            check(client.post(path, content=content, headers={"content-type": "application/json"}), live)
        for kind in TYPES:
            for content in (b"{}", b"a=b", b"--\r\n", beginning + b'"prompt": "a"}'):
                headers = {b"content-type": kind.encode("latin-1")}
                check(client.post(path, content=content, headers=headers), live)
    assert live.engine.idle


@pytest.mark.parametrize("path", ["/generate", "/snapshots"])
def test_any_query_is_answered(live: LiveServer, path: str) -> None:
    with httpx.Client(base_url=live.url, timeout=60) as client:
        for query in QUERIES:
            check(client.get(httpx.URL(path, query=query.encode())), live)
    assert live.engine.idle


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"seed": %s}' % (b"9" * 5000), "not valid JSON: a number in it has too many digits"),
        (b"[" * 100_000, "not valid JSON: it is nested too deep"),
        (b'{"prompt": "\xff"}', "not valid JSON: it is not UTF-8"),
        (b'{"\\ud800": 1}', "a field whose name is not valid Unicode"),
        (b'{"": 1}', ": is not a field of this request"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(live: LiveServer, body: bytes, words: str) -> None:
    """The first three were told "There was an error parsing the body", FastAPI's words for every error but a JSON
    syntax error; its cause is read now. The others were told to send a JSON object, which they had: no name was
    taken for no place in the body.
    """
    answer = httpx.post(f"{live.url}/generate", content=body, headers={"content-type": "application/json"})
    assert words in answer.json()["detail"]
