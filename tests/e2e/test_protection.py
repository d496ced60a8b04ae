"""The door: keys, and limits for each client."""

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse

from app.main import create_app
from app.security import rate_limit as limits
from app.settings import ServerSettings
from model.cli import run
from tests.e2e.conftest import Opened

KEYS = {"one": "first-Key_1", "two": "zweiter=", "three": "third~"}
SHORT = {"max_new_tokens": 3, "stream": False}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def forwarded(address: str) -> dict[str, str]:
    return {"x-forwarded-for": address}


def test_keys_open_what_costs_or_tells_and_never_show(
    serve: Callable[..., Opened], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "keys"
    file.write_text(f"# for testers\n\n  {KEYS['three']}  \n")
    answers = []
    with (
        serve(api_keys=f"{KEYS['one']}, {KEYS['two']}", api_keys_file=file) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for path in ("/", "/info", "/health/live", "/health/ready", "/docs", "/openapi.json", "/static/main.js"):
            assert client.get(path).status_code == 200, path
        for path in ("/generate", "/snapshots", "/metrics", "/v1/models", "/nowhere", "/static", "/info/", "/Info"):
            answers.append(client.get(path))
        for header in (
            "Bearer",
            "first-Key_1",
            "Basic first-Key_1",
            "Bearer é",
            "Bearer a b",
            "Bearer no",
        ):
            headers = [(b"authorization", header.encode())]
            answers.append(client.post("/generate", json=SHORT, headers=headers))
        assert {answer.status_code for answer in answers} == {401}
        assert {answer.headers["www-authenticate"].partition(" ")[0] for answer in answers} == {"Bearer"}
        assert answers[0].json()["detail"] == "send an API key: Authorization: Bearer KEY"
        assert answers[-1].json()["detail"] == "this API key is not valid"
        assert answers[-1].headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert client.get("/v1/models").json()["error"]["code"] == "invalid_api_key"
        for key in KEYS.values():
            for scheme in ("Bearer", "bearer"):
                answers.append(client.post("/generate", json=SHORT, headers={"authorization": f"{scheme} {key}"}))
                assert answers[-1].status_code == 200
        answers.append(client.get("/metrics", headers=bearer(KEYS["two"])))
        assert answers[-1].status_code == 200

        file.write_text("new-one\n")
        server.app.state.keys.reload()
        for key, status in {KEYS["one"]: 200, KEYS["three"]: 401, "new-one": 200}.items():
            assert client.post("/score", json={"text": "a"}, headers=bearer(key)).status_code == status
        file.write_text("")
        server.app.state.keys.reload()
        assert client.post("/score", json={"text": "a"}, headers=bearer("new-one")).status_code == 200
        assert "keys has no keys" in caplog.text
    shown = caplog.text + "".join(f"{answer.headers} {answer.text}" for answer in answers)
    for key in (*KEYS.values(), "new-one"):
        assert key not in shown


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("api_keys", "", "api_keys: has an empty key; leave it out where no key is wanted"),
        ("api_keys", "kkk,,lll", "api_keys: has an empty key"),
        ("api_keys", "kkk lll", "api_keys: has a key with spaces or other characters that a header cannot carry"),
        ("api_keys", "kkké", "api_keys: has a key with spaces"),
        (
            "api_keys_file",
            "/nowhere",
            "api_keys_file: /nowhere cannot be read: No such file or directory",
        ),
        (
            "api_keys_file",
            "",
            "--api_keys_file: Input should be a file of keys; leave it out where no key is wanted",
        ),
        ("api_keys_file", os.devnull, f"api_keys_file: {os.devnull} cannot be read: it is not a file"),
        ("rate_limit", "many", "--rate_limit: Input should be one rate above 0, such as 60/minute, not 'many'"),
        ("rate_limit", "0/minute", "--rate_limit: Input should be one rate"),
        ("rate_limit", "1/second;5/minute", "--rate_limit: Input should be one rate"),
        ("rate_limit", "5/fortnight", "--rate_limit: Input should be one rate"),
        ("streams_per_client", "0", "--streams_per_client: Input should be greater than or equal to 1"),
        ("trusted_hosts", "example.org:8000", "--trusted_hosts: Input should be host names without a port"),
        ("trusted_hosts", "a.org,", "--trusted_hosts: Input should be host names"),
        ("trusted_hosts", "*", "--trusted_hosts: Input should be host names"),
        ("trusted_proxies", "*", "--trusted_proxies: Input should be addresses or networks"),
        ("trusted_proxies", "10.0.0.1/8", "--trusted_proxies: Input should be addresses or networks"),
        ("trusted_proxies", "proxy.local", "--trusted_proxies: Input should be addresses or networks"),
        ("cors_origins", "example.org", "--cors_origins: Input should be origins"),
        ("cors_origins", "https://example.org/", "--cors_origins: Input should be origins"),
        ("cors_origins", "*,https://example.org", "--cors_origins: Input should be origins"),
        ("cors_origins", "null", "--cors_origins: Input should be origins"),
        ("cors_origins", "https://example.org,null", "--cors_origins: Input should be origins"),
        ("cors_origins", "https://*", "--cors_origins: Input should be origins"),
        ("cors_origins", "http://", "--cors_origins: Input should be origins"),
        ("max_new_tokens", "0", "--max_new_tokens: Input should be greater than or equal to 1"),
    ],
)
def test_what_would_protect_nobody_is_refused_at_start_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str], setting: str, value: str, message: str
) -> None:
    def make(settings: ServerSettings) -> None:
        create_app(settings)

    flags = [f"--checkpoint={folder}", "--device=cpu", f"--{setting}={value}"]
    assert run(ServerSettings, make, flags) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert "kkk" not in error


def test_a_client_over_its_rate_is_refused_and_others_are_not(
    serve: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSAL_GAP", 0)
    with (
        serve(rate_limit="2/hour", trusted_proxies="127.0.0.0/8, ::1") as server,
        httpx.Client(base_url=server.url) as client,
    ):

        def ask(*forwarded_for: str) -> httpx.Response:
            return client.post("/generate", json=SHORT, headers=forwarded(", ".join(forwarded_for)))

        for left in (1, 0):
            answer = ask("192.0.2.1")
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"default";q=2;w=3600'
            assert answer.headers["ratelimit"].startswith(f'"default";r={left};t=')
        refused = ask("192.0.2.1")
        assert refused.status_code == 429
        assert refused.headers["content-type"] == "application/problem+json"
        assert 0 < int(refused.headers["retry-after"]) == refused.json()["retry_after"] <= 3600
        assert refused.headers["ratelimit"] == f'"default";r=0;t={refused.headers["retry-after"]}'
        assert "over 2 requests in 3600 seconds" in refused.json()["detail"]
        for path in ("/v1/completions", "/score", "/report"):
            assert client.post(path, json={}, headers=forwarded("192.0.2.1")).status_code == 429
        assert client.get("/snapshots", headers=forwarded("192.0.2.1")).status_code == 429
        assert client.get("/info", headers=forwarded("192.0.2.1")).status_code == 200
        # another client, the proxy itself, and one that writes a header of its own, which the proxy adds to
        assert ask("192.0.2.2").status_code == 200
        assert ask().status_code == 200
        assert ask("192.0.2.77", "192.0.2.1", "127.0.0.9").status_code == 429
        assert ask("2001:db8::1").status_code == 200
        assert ask("2001:db8::2").status_code == 200
        assert ask("2001:db8::3").status_code == 429


def test_nobody_is_believed_to_be_a_proxy_who_is_not_named(
    serve: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSAL_GAP", 0)
    for more in ({}, {"trusted_proxies": "10.0.0.0/8"}):
        with serve(rate_limit="2/hour", **more) as server, httpx.Client(base_url=server.url) as client:
            answers = [
                client.post("/score", json={"text": "a"}, headers=forwarded(f"192.0.2.{i}")) for i in range(3)
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_with_keys_each_has_a_rate_of_its_own(
    serve: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSAL_GAP", 0)
    with serve(rate_limit="1/hour", api_keys="one,two") as server, httpx.Client(base_url=server.url) as client:
        statuses = [
            client.post("/score", json={"text": "a"}, headers=bearer(key)).status_code
            for key in ("one", "one", "two", "no", "no")
        ]
        assert statuses == [200, 429, 200, 401, 401]


def test_a_client_has_so_many_texts_at_once_and_others_have_theirs(serve: Callable[..., Opened]) -> None:
    fields = {"max_new_tokens": 50}
    with (
        serve(streams_per_client=3, trusted_proxies="127.0.0.1") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        server.gate.close()
        with connect_sse(client, "POST", "/generate", json=fields | {"num_samples": 2}) as source:
            events = source.iter_sse()
            assert next(events).event == "start"
            refused = client.post("/generate", json=fields | {"num_samples": 2})
            assert refused.status_code == 429
            assert refused.headers["retry-after"] == "5"
            assert refused.json()["detail"] == "this client has 2 texts being written, of 3 at most"
            other = client.post("/generate", json=fields | {"num_samples": 4}, headers=forwarded("192.0.2.9"))
            assert other.status_code == 422
            assert [error["field"] for error in other.json()["errors"]] == ["num_samples"]
            with (
                connect_sse(client, "POST", "/generate", json=fields),
                connect_sse(
                    client, "POST", "/generate", json=fields | {"num_samples": 3}, headers=forwarded("::7")
                ),
            ):
                assert client.post("/score", json={"text": "a"}).status_code == 429
                server.gate.open()
                assert [event.event for event in events][-1] == "done"
        # one was read to its end, two were left, three were refused; each has given back what it had
        for samples in (3, 3):
            answer = client.post("/generate", json=fields | {"num_samples": samples, "stream": False})
            while answer.status_code == 429:  # the clients that left are seen to have left in a moment
                answer = client.post("/generate", json=fields | {"num_samples": samples, "stream": False})
            assert answer.status_code == 200


def test_a_text_is_no_longer_than_this_server_writes(serve: Callable[..., Opened]) -> None:
    with serve(max_new_tokens=20) as server, httpx.Client(base_url=server.url) as client:
        refused = client.post("/generate", json={"max_new_tokens": 21})
        assert refused.status_code == 422
        assert refused.json()["errors"] == [
            {"field": "max_new_tokens", "message": "this server writes 20 at most, not 21"}
        ]
        assert client.get("/generate?max_new_tokens=21").status_code == 422
        answer = client.post("/generate", json={"stream": False})  # 500 is only what nobody asked for
        assert answer.json()["parameters"]["max_new_tokens"] == 20
        field = re.search(r'<input id="max_new_tokens".*?>', client.get("/").text, re.DOTALL)
        assert field is not None
        assert 'data-low="1" data-high="20"' in field[0]
