"""What OpenAI's own client cannot have from `/v1`: each refusal is one of its exceptions and names the field."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from app.main import create_app
from app.settings import ServerSettings
from tests.conftest import LiveServer
from tests.e2e.test_openai import ASKED, client_of


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[LiveServer]:
    """One for all tests here that do not set it up in another way."""
    with LiveServer(create_app(ServerSettings(checkpoint=folder, device="cpu"))) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[OpenAI]:
    """OpenAI's client as its documentation makes it."""
    with client_of(server) as client:
        yield client


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"prompt": [1, 2]}, "prompt", "a string or a list of strings, not [1, 2]"),
        ({"prompt": [[1], [2]]}, "prompt", "a string or a list of strings"),
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": ["a"] * 17}, "prompt", "at most 16"),
        ({"prompt": "a" * 20_000}, "prompt.0", "at most 16384"),
        ({"prompt": "ma\u00f1ana"}, "prompt", "never seen 'ñ' (position 2); use 'n' instead"),
        ({"prompt": ["a", "日"]}, "prompt[1]", "never seen '日' (position 0)"),
        ({"stop": ["a"] * 65}, "stop", "at most 64"),
        ({"stop": "a" * 257}, "stop.0", "at most 256"),
        ({"stop": 5}, "stop", "a string or a list of strings, not 5"),
        ({"max_tokens": -1}, "max_tokens", "not -1"),
        ({"max_tokens": 0}, "max_tokens", "or echo"),
        ({"max_tokens": "5"}, "max_tokens", "valid integer"),
        ({"temperature": -1}, "temperature", "not -1"),
        ({"top_p": -0.1}, "top_p", "not -0.1"),
        ({"max_tokens": 5.5}, "max_tokens", "valid integer, not 5.5"),
        ({"extra_body": {"top_k": -2}}, "top_k", "not -2"),
        ({"n": 17}, "n", "not 17"),
        ({"n": 6, "prompt": ["a", "b", "c"]}, "n", "18 texts in all are more than 16"),
        ({"best_of": 3}, "best_of", "must be n, 1 here"),
        ({"seed": 2**63}, "seed", "less than 9223372036854775808, not 9223372036854775808"),
        ({"seed": -(2**63) - 1}, "seed", "equal to -9223372036854775808, not -9223372036854775809"),
        ({"seed": 0.5}, "seed", "valid integer, not 0.5"),
        ({"extra_body": {"store": True}}, "store", "should be False"),
        ({"logprobs": 6}, "logprobs", "not 6"),
        ({"logprobs": 5, "max_tokens": 100_000, "n": 4}, "logprobs", "2,400,000 in all"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"every": 1}}, "stream_options.every", "not a field"),
        ({"presence_penalty": 0.5}, "presence_penalty", "not 0.5"),
        ({"frequency_penalty": -0.5}, "frequency_penalty", "not -0.5"),
        ({"logit_bias": {"5": 100}}, "logit_bias.5", "not 100"),
        ({"suffix": "x"}, "suffix", "should be '', not 'x'"),
        ({"extra_body": {"repetition_penalty": 1.1}}, "repetition_penalty", "not a field of this request"),
        ({"extra_body": {"ignore_eos": None}}, "ignore_eos", "not a field of this request"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(
    client: OpenAI, server: LiveServer, changes: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.completions.create(**ASKED | changes)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"
    assert words in caught.value.message
    assert server.engine.idle


def test_other_refusals_are_the_clients_own_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(**ASKED | {"model": "gpt-3.5-turbo-instruct"})
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    assert "use 'tiny'" in missing.value.message
    with pytest.raises(openai.NotFoundError, match="it does not chat: there is no /v1/chat/completions"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    with pytest.raises(openai.APIStatusError, match="shorter prompt") as large:
        client.completions.create(**ASKED | {"prompt": "a" * 300_000})
    assert large.value.status_code == 413


@pytest.mark.parametrize("limit", [{"slots": 2, "queue_size": 1}, {"streams_per_client": 3}])
def test_what_the_server_is_set_to_is_kept_to(folder: Path, limit: dict[str, int]) -> None:
    settings = ServerSettings.model_validate({"checkpoint": folder, "device": "cpu", "max_new_tokens": 10} | limit)
    with LiveServer(create_app(settings)) as server, client_of(server) as client:
        with pytest.raises(openai.UnprocessableEntityError, match="writes 10 at most, not 11") as caught:
            client.completions.create(**ASKED | {"max_tokens": 11})
        assert caught.value.param == "max_tokens"
        with pytest.raises(openai.UnprocessableEntityError, match=r"3 .*, not 4") as caught:
            client.completions.create(**ASKED | {"max_tokens": 10, "n": 4})
        assert caught.value.param == "n"
        assert len(client.completions.create(**ASKED | {"max_tokens": 10, "n": 3}).choices) == 3
        assert len(client.completions.create(model="tiny", prompt="a").choices[0].text) == 10
        assert server.app.state.observer.metrics.characters == 40


def test_a_server_that_stops_says_so_in_mid_stream(folder: Path) -> None:
    settings = ServerSettings(checkpoint=folder, device="cpu")
    with LiveServer(create_app(settings)) as server, client_of(server) as client:
        server.gate.close()
        stream = client.completions.create(**ASKED, stream=True)
        server.engine.drain(0)
        server.gate.open()
        with pytest.raises(openai.APIError, match="stopped before the text was finished") as caught:
            list(stream)
        assert caught.value.code == "server_overloaded"
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(**ASKED)
        assert refused.value.status_code == 503
        assert int(refused.value.response.headers["retry-after"]) > 0
