"""Reports and snapshots as a client of the API meets them, on the bundled model."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import connect_sse

from app.main import create_app
from app.settings import ServerSettings
from model.checkpoint import read_checkpoint
from model.generation.generator import load_generator
from model.generation.sequence import TextSequence
from tests.conftest import LiveServer
from tests.e2e.conftest import BUNDLED
from tests.tiny import INT8, tiny_folder

ASKED = {"prompt": "ROMEO:\n", "seed": 4, "max_new_tokens": 500, "report": True, "details": True, "alternatives": 0}


def post(server: LiveServer, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(server: LiveServer, last: str | None = None, stop_after: int | None = None) -> list[Any]:
    headers = {"last-event-id": last} if last else {}
    with (
        httpx.Client(timeout=60) as client,
        connect_sse(client, "POST", f"{server.url}/generate", json=ASKED, headers=headers) as source,
    ):
        found = []
        for event in source.iter_sse():
            found.append(event)
            if event.event == "text" and stop_after is not None and len(found) > stop_after:
                break
        return found


def marks(found: list[Any]) -> tuple[str, list[int], list[str]]:
    """The text of some events, the lengths of its runs, and its invented words."""
    data = [event.json() for event in found if event.event == "text"]
    text = "".join(one["text"] for one in data)
    copied: list[int] = []
    invented: list[str] = []
    for one in data:
        copied += one["copied"]
        invented += [word["word"] for word in one["invented"]]
    return text, copied, invented


def test_what_is_told_live_is_what_the_report_says_in_the_end(bundled_server: LiveServer) -> None:
    found = events(bundled_server)
    text, copied, invented = marks(found)
    [report] = found[-1].json()["reports"]
    assert copied == report["copies"]["lengths"]
    assert invented == [word["word"] for word in report["words"]["invented"]]
    assert invented
    assert report == post(bundled_server, "/report", prompt="ROMEO:\n", text=text)
    whole = post(bundled_server, "/generate", **ASKED, stream=False)
    assert whole["reports"] == [report]
    assert report["figures"]["model_bits"]["value"] > 1


def test_a_text_that_goes_on_after_a_break_has_the_same_report(bundled_server: LiveServer) -> None:
    undisturbed = events(bundled_server)
    before = events(bundled_server, stop_after=3)
    after = events(bundled_server, last=before[-1].id)
    assert marks(before)[0] + marks(after)[0] == marks(undisturbed)[0]
    assert marks(before)[1] + marks(after)[1] == marks(undisturbed)[1]
    assert after[-1].json()["reports"] == undisturbed[-1].json()["reports"]


@pytest.mark.parametrize("text", ["", "x", "¡Señor 😀 \x00\u2028!", "na " * 5_000])
def test_any_text_has_a_report(bundled_server: LiveServer, text: str) -> None:
    report = post(bundled_server, "/report", text=text)
    assert report["characters"] == len(text)
    assert len(report["copies"]["lengths"]) == len(text)
    assert set(report["sentences"]) == {"copies", "words", "structure", "quality"}
    json.dumps(report, allow_nan=False)


def test_a_copy_is_found_and_called_one(bundled_server: LiveServer) -> None:
    copy = "We are accounted poor citizens, the patricians good.\nWhat authority surfeits on would relieve us"
    report = post(bundled_server, "/report", text=f"Zounds, xq! {copy} zxq")
    assert report["figures"]["copied_50"]["value"] > 0.8
    assert report["sentences"]["copies"]["key"] == "copies.mostly"
    [run] = report["copies"]["runs"]
    assert (run["start"], run["end"]) == (12, 12 + len(copy))


def test_too_long_a_text_is_refused_before_it_is_read(bundled_server: LiveServer) -> None:
    answer = httpx.post(f"{bundled_server.url}/report", json={"text": "x" * 100_001})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "text"
    assert httpx.post(f"{bundled_server.url}/report", json={"text": "x" * 1_000_000}).status_code == 413


def test_without_an_index_there_is_no_report(server: LiveServer) -> None:
    for path, body in (("/report", {"text": "x"}), ("/generate", {"report": True})):
        answer = httpx.post(f"{server.url}{path}", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["field"] == "report"
    assert httpx.get(f"{server.url}/info").json()["report"] is False


def test_each_snapshot_writes_what_it_writes_alone(bundled_server: LiveServer) -> None:
    query: dict[str, Any] = {"prompt": "ROMEO:\n", "seed": 3, "max_new_tokens": 100}
    answer = httpx.get(f"{bundled_server.url}/snapshots", params=query, timeout=60).json()
    steps = [one["step"] for one in answer["snapshots"]]
    assert steps == httpx.get(f"{bundled_server.url}/info").json()["snapshots"]
    assert steps[0] == 0
    assert len(steps) >= 4
    folder = Path(f"{BUNDLED}-snapshots")
    for one in (answer["snapshots"][0], answer["snapshots"][-1]):
        checkpoint = read_checkpoint(folder / f"{one['step']:06d}")
        prompt = checkpoint.vocabulary.encode("ROMEO:\n")
        stream = TextSequence(checkpoint.vocabulary, prompt, seed=3, max_new_tokens=100)
        alone = "".join(chunk.text for chunk in load_generator(checkpoint, INT8, 1, 1).write(stream))
        assert one["text"] == alone
    losses = [point["val"] for point in answer["curve"]]
    assert losses[-1] < losses[0]
    refused = httpx.get(f"{bundled_server.url}/snapshots", params={"prompt": "ñ"})
    assert refused.status_code == 422


def test_a_damaged_snapshot_is_a_clear_error_without_a_path(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "tiny")
    tiny_folder(tmp_path / "tiny-snapshots" / "000000")
    (tmp_path / "tiny-snapshots" / "000000" / "model.safetensors").write_bytes(b"no weights")
    with LiveServer(create_app(ServerSettings(checkpoint=tmp_path / "tiny", device="cpu"))) as live:
        answer = httpx.get(f"{live.url}/snapshots", timeout=60)
    assert answer.status_code == 500
    assert "cannot be read" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text


def test_a_checkpoint_without_snapshots_has_none(server: LiveServer) -> None:
    assert httpx.get(f"{server.url}/snapshots").json()["snapshots"] == []
