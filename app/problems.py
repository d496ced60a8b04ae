"""Every refusal as an RFC 9457 problem object, and below /v1 as OpenAI's clients expect it.

Nothing in one tells of files, code or other clients.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.types import Scope

from model.errors import (
    CheckpointError,
    DeadlineError,
    DrainingError,
    InputError,
    QueueFullError,
    SoliloquyError,
    UnavailableError,
    UnknownCharactersError,
)

logger = logging.getLogger(__name__)

MAX_LISTED = 100
OPENAI_ROUTES = ("/completions", "/models")
OPENAI_ENDINGS = (
    *OPENAI_ROUTES,
    *("/embeddings", "/responses", "/moderations", "/edits", "/files", "/assistants", "/images/generations"),
    *("/audio/speech", "/audio/transcriptions", "/audio/translations", "/fine_tuning/jobs", "/batches"),
)
REASON_OF_ERROR: dict[type[SoliloquyError], str] = {  # for metrics
    QueueFullError: "queue_full",
    DeadlineError: "timeout",
    DrainingError: "draining",
}
OPENAI_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded", 503: "server_overloaded"}


@dataclass(frozen=True)
class Problem:
    """A status, a sentence, and the fields or characters it is about."""

    status: int
    detail: str
    extra: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """The problem object."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail} | self.extra

    def openai_content(self) -> dict[str, Any]:
        """The same as OpenAI's error object; `param` is the first field at fault."""
        fields = [one["field"] for one in self.extra.get("errors", [])]
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        code = self.extra.get("code", OPENAI_CODES.get(self.status))
        return {"error": {"message": self.detail, "type": kind, "param": next(iter(fields), None), "code": code}}

    def response(self, path: str) -> Response:
        """The problem as an answer of its own, in the form that clients of this path expect."""
        if is_openai(path):
            return Response(json.dumps(self.openai_content()), self.status, self.headers, "application/json")
        return Response(json.dumps(self.content()), self.status, self.headers, "application/problem+json")


def is_openai(path: str) -> bool:
    """Whether clients of this path are OpenAI's, or may be: they are often given another address than they need."""
    return path == "/v1" or path.startswith("/v1/") or path.rstrip("/").endswith(OPENAI_ENDINGS)


def _no_route(path: str) -> str:
    """What is there instead of a path that is not; the path itself is not told back, for it is anybody's text."""
    there = "POST /v1/completions writes text after a prompt, GET /v1/models lists the model"
    if path.rstrip("/").endswith("/chat/completions"):
        return f"this model continues texts, it does not chat: there is no /v1/chat/completions; {there}"
    if path.rstrip("/").endswith(OPENAI_ROUTES):
        return f"there is nothing at this path: use http://HOST:PORT/v1 as the client's base URL; {there}"
    if is_openai(path):
        return f"there is nothing at this path; {there}"
    return "there is nothing at this path; /docs describes what there is"


def to_problem(error: SoliloquyError) -> Problem:
    """The problem that a domain error is to a client."""
    if isinstance(error, UnknownCharactersError):
        listed = [vars(one) for one in error.unknown[:MAX_LISTED]]
        extra: dict[str, Any] = {"characters": listed, "unknown_count": len(error.unknown)}
        return Problem(422, str(error), _errors([(error.field, error.message)]) | extra)
    if isinstance(error, InputError):
        return Problem(422, str(error), _errors([(error.field, error.message)]))
    if isinstance(error, UnavailableError):
        retry = error.retry_after
        return Problem(503, str(error), {"retry_after": retry}, {"Retry-After": str(retry)})
    if isinstance(error, CheckpointError):  # it names files, which are nobody else's business
        logger.error("%s", error)
        return Problem(500, "a checkpoint on the server cannot be read; the server's log says which and why")
    return Problem(500, str(error))


def install(app: FastAPI) -> None:
    """Give the app one handler per family of errors."""

    @app.exception_handler(SoliloquyError)
    def on_domain_error(request: Request, error: SoliloquyError) -> Response:
        request.state.reason = REASON_OF_ERROR.get(type(error))
        return to_problem(error).response(request.scope["path"])

    @app.exception_handler(RequestValidationError)
    def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return _invalid(error.errors()).response(request.scope["path"])

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> Response:
        path = request.scope["path"]
        headers = dict(error.headers or {})
        detail = _unreadable(error.__cause__) or error.detail
        if error.status_code == 405:
            headers["Allow"] = ", ".join(sorted(_methods(app, request.scope)))
        elif error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase:
            detail = _no_route(path)
        return Problem(error.status_code, detail, headers=headers).response(path)

    @app.exception_handler(Exception)
    def on_any_error(request: Request, error: Exception) -> Response:
        problem = Problem(500, "an unexpected error; the server's log has it")
        return problem.response(request.scope["path"])


def _methods(app: FastAPI, scope: Scope) -> set[str]:
    """What a path can be asked for: of all its routes, not only the first; and HEAD wherever there is GET."""
    found: set[str] = set()
    whole = {**scope, "root_path": scope.get("app_root_path", scope.get("root_path", ""))}  # files see a part of it
    for route in app.routes:
        for method in ("GET",) if isinstance(route, Mount) else ("GET", "POST"):
            if route.matches({**whole, "method": method})[0] is Match.FULL:
                found.add(method)
    return found | ({"HEAD"} if "GET" in found else set())


def _invalid(errors: Sequence[Any]) -> Problem:
    """What pydantic found wrong, with the field, the value and the remedy in words."""
    if any(error["type"] == "json_invalid" for error in errors):
        where = errors[0]["loc"][-1]
        reason = errors[0].get("ctx", {}).get("error", "")
        return Problem(400, f"the body is not valid JSON: {reason} (character {where})")
    found = []
    for error in errors:
        name = ".".join(str(part) for part in error["loc"][1:])
        if len(error["loc"]) < 2 and error["type"] == "string_unicode":
            found.append(("body", "has a field whose name is not valid Unicode"))
        elif len(error["loc"]) < 2:
            found.append(("body", "must be one JSON object, sent with content-type: application/json"))
        elif error["type"] == "extra_forbidden":
            found.append((name, "is not a field of this request; remove it or check its spelling"))
        else:
            found.append((name, f"{error['msg']}, not {_short(error['input'])}"))
    return Problem(422, "; ".join(f"{name}: {message}" for name, message in found[:5]), _errors(found))


def _unreadable(cause: BaseException | None) -> str | None:
    """Why a body cannot be read, where FastAPI says only that; None if that is not what went wrong."""
    reasons = (
        (UnicodeDecodeError, "it is not UTF-8"),
        (RecursionError, "it is nested too deep"),
        (ValueError, "a number in it has too many digits"),
    )
    return next((f"the body is not valid JSON: {why}" for kind, why in reasons if isinstance(cause, kind)), None)


def _errors(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"errors": [{"field": name, "message": message} for name, message in found[:MAX_LISTED]]}


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
