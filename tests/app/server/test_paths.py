"""One spelling of each path.

Checks compared the path as it was sent: `//v1/completions` was not found, and a spelling that the routes had taken
for another could have gone around a check. Paths are made canonical before anything looks at them.
"""

import pytest

from app.server.paths import canonical, relative


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/", "", "/"),
        ("//", "", "/"),
        ("/info", "", "/info"),
        ("//v1/completions", "", "/v1/completions"),
        ("/v1//completions", "", "/v1/completions"),
        ("/./metrics", "", "/metrics"),
        ("/x/../metrics", "", "/metrics"),
        ("/../../metrics", "", "/metrics"),
        ("/static/../generate", "", "/generate"),
        ("/health/x/../../generate", "", "/generate"),
        ("/info/", "", "/info/"),
        ("/info//", "", "/info/"),
        ("/info/.", "", "/info/"),
        ("/x/..", "", "/"),
        ("/...", "", "/..."),
        ("*", "", "*"),
        ("", "", ""),
        ("/gpt", "/gpt", "/"),
        ("/gpt/", "/gpt", "/"),
        ("//gpt//info", "/gpt", "/info"),
        ("/info", "/gpt", "/info"),
        ("/gptx/info", "/gpt", "/gptx/info"),
        ("/gpt/gpt/info", "/gpt", "/gpt/info"),
        ("/gpt/../generate", "/gpt", "/generate"),
        ("/a/b/info", "/a/b", "/info"),
        ("/a/info", "/a/b", "/a/info"),
    ],
)
def test_a_path_has_one_spelling(path: str, root_path: str, expected: str) -> None:
    assert canonical(path, root_path) == expected


@pytest.mark.parametrize(
    ("sent", "location", "expected"),
    [
        (b"/info/", "http://x/info", "../info"),
        (b"/gpt/info/", "http://x/info?a=b", "../info?a=b"),
        (b"/info//", "http://x/info", "../../info"),
        (b"/info%2F", "http://x/info", "./info"),
        (b"/static", "http://x/static/", "./static/"),
        (b"/v1/models/", "http://x/v1/models", "../models"),
    ],
)
def test_a_redirect_is_relative_to_what_was_sent(sent: bytes, location: str, expected: str) -> None:
    """It named the host and began at the root, which is another place behind a proxy."""
    assert relative(sent, location) == expected
