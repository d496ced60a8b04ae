"""The server below a path of a proxy, `location /gpt/`: the page's files were 404, and redirects lost the prefix,
because all addresses began at the root. They are relative now, or have the prefix where it is known."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.conftest import LiveServer
from tests.e2e.conftest import Opened, begin, opened, written
from tests.e2e.proxy import Program, find_nginx, free_ports

NGINX = """
pid {folder}/nginx.pid;
error_log /dev/stderr notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location {location} {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_buffering off;
        }}
    }}
}}
"""
FAKE_SWAGGER = """
window.SwaggerUIBundle = ({ url }) => fetch(url).then((answer) => answer.json()).then(({ info }) => {
  document.body.append(info.title);
});
window.SwaggerUIBundle.presets = {};
window.SwaggerUIBundle.SwaggerUIStandalonePreset = {};
"""


@contextmanager
def proxied(folder: Path, server: LiveServer, location: str, path: str) -> Iterator[str]:
    """nginx, which shows the server below `location`; `path` is what it hands on in its place."""
    [port] = free_ports(1)
    text = NGINX.format(folder=folder, port=port, location=location, upstream=f"{server.url}{path}")
    (folder / "nginx.conf").write_text(text)
    files = ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    running = Program([find_nginx(), *files], "start worker process")
    running.wait()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.end(signal.SIGTERM)


Shown = Callable[[str, str, str], str]


@pytest.fixture
def show(serve: Callable[..., Opened], tmp_path: Path) -> Iterator[Shown]:
    """Shows a new server by a proxy; the proxy's address."""
    with ExitStack() as stack:

        def shown(location: str, path: str, root_path: str) -> str:
            server = stack.enter_context(serve(root_path=root_path))
            return stack.enter_context(proxied(tmp_path, server, location, path))

        yield shown


WAYS = [
    ("/gpt/", "/", ""),  # the prefix is cut off, and the server does not know it
    ("/gpt/", "/", "/gpt"),
    ("/gpt", "", "/gpt"),  # it is handed on
    ("/a/b-c/", "", "/a/b-c/"),
]


@pytest.mark.parametrize(("location", "path", "root_path"), WAYS)
def test_the_page_works_below_a_path(
    browser: Browser, show: Shown, location: str, path: str, root_path: str
) -> None:
    url = show(location, path, root_path) + location
    with opened(browser, url) as page:
        begin(page, "ROMEO:", max_new_tokens="20")
        page.click("#write")
        written(page)
        page.click("#tab-model")
        expect(page.locator("#card-panel")).not_to_be_empty()
        links = page.locator("#model a")
        addresses = [link.evaluate("one => one.href") for link in links.all()]
        for address in addresses:
            assert httpx.get(address).status_code == 200
        answer_docs(page, addresses[1])


def answer_docs(page: Page, url: str) -> None:
    """The API's page finds the description; its script is not fetched from elsewhere here."""

    def fulfil(route: Route) -> None:
        is_script = route.request.url.endswith(".js")
        route.fulfill(
            body=FAKE_SWAGGER if is_script else "", content_type="text/javascript" if is_script else "text/css"
        )

    page.route(re.compile("jsdelivr"), fulfil)
    page.goto(url)
    expect(page.locator("body")).to_contain_text("Soliloquy")


@pytest.mark.parametrize(("location", "path", "root_path"), WAYS)
def test_redirects_and_resumption_keep_the_prefix(show: Shown, location: str, path: str, root_path: str) -> None:
    base = show(location, path, root_path)
    prefix = location.rstrip("/")
    with httpx.Client(base_url=base, timeout=60) as client:
        page = client.get(prefix, follow_redirects=True)
        assert page.status_code == 200
        assert "<title>Soliloquy" in page.text
        moved = client.get(f"{prefix}/info/?a=b")
        assert moved.status_code == 307
        assert moved.headers["location"] == "../info?a=b"
        assert client.get(f"{prefix}/info/", follow_redirects=True).json()["block_size"]
        fields = {"prompt": "ROMEO:", "seed": 3, "max_new_tokens": 40}
        whole = client.post(f"{prefix}/generate/", json=fields, follow_redirects=True).text
        first = re.search("^id: (.+)$", whole, re.MULTILINE)
        assert first is not None
        again = client.post(f"{prefix}/generate", json=fields, headers={"last-event-id": first[1]}).text
        assert texts(whole).endswith(texts(again))
        assert len(texts(again)) < len(texts(whole))
        servers = client.get(f"{prefix}/openapi.json").json().get("servers")
        assert servers == ([{"url": root_path.rstrip("/")}] if root_path else None)
        assert client.get(f"{prefix}//v1/models").status_code == 200


def texts(stream: str) -> str:
    """All text of a stream."""
    found = re.findall("^event: text\ndata: (.+)$|^data: (.+)$", stream, re.MULTILINE)
    return "".join(json.loads(one or other).get("text", "") for one, other in found)


SPELLINGS = [
    "{}", "/{}", "//{}", "/.{}", "/x/..{}", "/static/..{}", "/health/live/../..{}", "/gpt{}", "//gpt/{}",
    "/%2e{}", "/static/%2e%2e{}", "/static%2f..{}", "/gpt/static/%2e%2e{}", "http://example.org{}",
]  # fmt: skip


def get(server: LiveServer, path: str, host: str = "example.org") -> int:
    """The status of a path that is sent as it is."""
    address = httpx.URL(server.url)
    with closing(HTTPConnection(address.host, address.port, timeout=60)) as client:
        client.request("GET", path, headers={"host": host})
        return client.getresponse().status


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_gets_around_a_check(serve: Callable[..., Opened], spelling: str) -> None:
    with serve(api_keys="key", root_path="/gpt") as server:
        for path in ("/metrics", "/generate", "/v1/models", "/%67enerate"):
            assert get(server, spelling.format(path)) == 401
        assert get(server, spelling.format("/info")) == 200
    with serve(rate_limit="1/hour", root_path="/gpt", trusted_hosts="example.org") as server:
        assert get(server, spelling.format("/info"), "elsewhere.org") == (200 if "http:" in spelling else 400)
        assert get(server, spelling.format("/health/live"), "elsewhere.org") == 200
        assert get(server, "/generate?max_new_tokens=1") == 200
        assert get(server, spelling.format("/generate?max_new_tokens=1")) == 429


def test_the_host_of_an_absolute_address_counts(serve: Callable[..., Opened]) -> None:
    """Not the Host header's (RFC 9112 3.2.2)."""
    with serve(trusted_hosts="example.org") as server:
        assert get(server, "http://example.org/info", "elsewhere.org") == 200
        assert get(server, "http://elsewhere.org/info", "example.org") == 400
