"""The page's files as browsers get them: without comments and indentation, and revalidated each time.

Knows nothing of what is in them, but that a comment has lines of its own.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

SLIMMED = frozenset({".css", ".js"})
QUOTES = "\"'`"
WORKER = "engine/worker.js"
# A thread has a policy of its own: this one may compute, and import its modules, but fetch nothing.
WORKER_POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'"


class PageFiles(StaticFiles):
    """Static files that a browser revalidates each time, so that it sees a new version at once.

    Args:
        directory: the page's own, whose scripts and styles are slimmed.
        packages: those with other files, which are sent as they are.
    """

    def __init__(self, directory: Path, packages: list[str | tuple[str, str]]) -> None:
        super().__init__(directory=directory, packages=packages)
        self._own = directory.resolve()

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 if the browser has it."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        if path == WORKER:
            response.headers["Content-Security-Policy"] = WORKER_POLICY
        return response

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, slimmed if it is one of the page's scripts or styles; or 304."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        path = Path(full_path)
        if (
            response.status_code == 304
            or path.suffix not in SLIMMED
            or not path.resolve().is_relative_to(self._own)
        ):
            return response
        kept = {name: response.headers[name] for name in ("etag", "last-modified")}
        content = slimmed(path, stat_result.st_mtime_ns)
        return Response(content, status_code, headers=kept, media_type=response.headers["content-type"])


@lru_cache(maxsize=256)
def slimmed(path: Path, _modified: int) -> str:
    """A script or style without comments and indentation.

    Comments are left out that begin a line or end one. No string in these files goes over several lines. A script's
    lines keep their numbers, for what a browser reports; those of a style are joined.
    """
    lines: list[str] = []
    in_comment = False
    for line in path.read_text(encoding="utf-8").split("\n"):
        text = line.strip()
        if in_comment or text.startswith("/*"):
            in_comment = "*/" not in text
            text = "" if in_comment else text.partition("*/")[2].strip()
        elif text.startswith("//"):
            text = ""
        elif text.endswith("*/") and path.suffix == ".css":
            text = text.rpartition("/*")[0].strip()
        lines.append(_without_last_comment(text))
    if path.suffix == ".css":
        return "".join(_without_spaces(line) for line in lines)
    return "\n".join(lines)


def _without_spaces(line: str) -> str:
    """A line of a style as the next can follow it: declarations need no space after their colon, rules none."""
    text = re.sub(r"(?<=[:,]) | (?={$)", "", line)
    return text if text.endswith((";", "{", "}", ",", ":")) else f"{text} ".lstrip()


def _without_last_comment(line: str) -> str:
    """A line without the comment that ends it; with it where the two slashes may be in a string."""
    code, _, comment = line.partition(" // ")
    if comment and all(code.count(quote) % 2 == 0 for quote in QUOTES):
        return code.rstrip()
    return line
