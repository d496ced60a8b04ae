"""The page as HTTP answers it: its language, and the headers that guard it."""

import json
import re
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from app.main import create_app
from app.settings import ServerSettings
from tests.conftest import LiveServer

ROOT = Path(__file__).parents[2]
TEXTS = json.loads((ROOT / "templates" / "texts.json").read_text(encoding="utf-8"))


def language_of(server: LiveServer, header: str | None, query: str = "") -> str:
    """The language answered in, as its header and its first tag say."""
    with httpx.Client(headers={} if header is None else {"accept-language": header}) as client:
        answer = client.get(f"{server.url}/{query}")
    assert answer.status_code == 200
    code = answer.headers["content-language"]
    assert f'<html lang="{code}">' in answer.text
    assert answer.headers["vary"] == "Accept-Language"
    return code


def test_every_language_has_the_same_texts() -> None:
    assert list(TEXTS) == ["en", "es"]
    assert TEXTS["en"].keys() == TEXTS["es"].keys()


def test_the_page_is_in_the_language_asked_for(server: LiveServer) -> None:
    for header, expected in {
        None: "en",
        "": "en",
        "es": "es",
        "ES": "es",
        "es-MX": "es",
        "es-419,en;q=0.9": "es",
        "en-GB,en;q=0.9,es;q=0.8": "en",
        "en;q=0.4, es;q=0.5": "es",
        "en;q=0.5,es;q=0.5": "en",
        "es;q=0.5,en;q=0.5": "es",
        "de-DE,de;q=0.9,es;q=0.1": "es",
        "de,fr": "en",
        "es;q=0": "en",
        "es;q=0.000, *": "en",
        "*": "en",
        "est": "en",  # Estonian
        "es;q=2, en;q=0.1": "en",  # no rank that HTTP knows
        "es; q = 1": "en",
        ";;,,=": "en",
        "e" * 30_000: "en",
        "es," * 10_000: "es",
    }.items():
        assert language_of(server, header) == expected, header
    for query, expected in {"?lang=es": "es", "?lang=en": "en", "?lang=xx": "es", "?lang=": "es"}.items():
        assert language_of(server, "es", query) == expected, query
    assert language_of(server, "en", "?lang=es") == "es"
    assert language_of(server, "en", "?lang=__class__") == "en"


def test_the_page_is_guarded(server: LiveServer) -> None:
    headers = httpx.get(server.url).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("name", ["style.css", "main.js", "favicon.svg"])
def test_its_files_are_not_sniffed_and_are_revalidated(server: LiveServer, name: str) -> None:
    first = httpx.get(f"{server.url}/static/{name}")
    again = httpx.get(f"{server.url}/static/{name}", headers={"if-none-match": first.headers["etag"]})
    assert (first.status_code, again.status_code) == (200, 304)
    for answer in (first, again):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
    assert httpx.get(f"{server.url}/static/%2e%2e/app/web/page.py").status_code == 404


def test_the_page_tells_of_the_model(server: LiveServer) -> None:
    card = httpx.get(f"{server.url}/info").json()
    assert card["checkpoint"] in httpx.get(server.url).text


def test_scripts_are_sent_without_comments_and_keep_their_lines(server: LiveServer) -> None:
    """A third of them were comments and indentation, which no reader of the page needs."""
    for path in (ROOT / "static").rglob("*.js"):
        source = path.read_text(encoding="utf-8").split("\n")
        assert not any(line.count("`") % 2 for line in source), path  # a string over several lines would be changed
        answer = httpx.get(f"{server.url}/static/{path.relative_to(ROOT / 'static').as_posix()}")
        sent = answer.text.split("\n")
        assert len(sent) == len(source)
        assert not any(line.startswith(("//", "/*", "\t")) for line in sent)
        for line, text in zip(sent, source, strict=True):
            whole = text.strip()
            assert line in ("", whole) or whole.endswith(line) or whole.startswith(f"{line} // ")


def test_styles_are_sent_without_comments_and_needless_spaces(server: LiveServer) -> None:
    def meaning(style: str) -> str:
        return re.sub(r"\s*([{};,:])\s*", r"\1", re.sub(r"\s+", " ", style)).strip()

    for path in (ROOT / "static").glob("*.css"):
        source = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        sent = httpx.get(f"{server.url}/static/{path.name}").text
        assert meaning(sent) == meaning(source)
        assert len(sent) < len(source) * 0.9


@pytest.mark.parametrize(
    ("origins", "policy"),
    [
        (None, "frame-ancestors 'none'"),
        ("https://course.example.org", "frame-ancestors https://course.example.org"),
        ("https://*.example.org, http://localhost:*", "frame-ancestors https://*.example.org http://localhost:*"),
    ],
)
def test_pages_of_named_origins_may_show_it_in_a_frame(folder: Path, origins: str | None, policy: str) -> None:
    settings = ServerSettings(checkpoint=folder, device="cpu", frame_ancestors=origins)
    with LiveServer(create_app(settings)) as live:
        assert httpx.get(live.url).headers["content-security-policy"].endswith(f"form-action 'none'; {policy}")
        others = httpx.get(f"{live.url}/info").headers["content-security-policy"]
    assert others == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize("origins", ["example.org", "'self'; script-src *", "https://a b", ""])
def test_what_is_no_origin_is_refused(folder: Path, origins: str) -> None:
    with pytest.raises(ValidationError, match="frame_ancestors"):
        ServerSettings(checkpoint=folder, frame_ancestors=origins)
