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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.errors import CheckpointError, InputError, SoliloquyError, UnavailableError, UnknownCharactersError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 256 * 1024
MAX_LISTED = 100
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
        code = OPENAI_CODES.get(self.status)
        return {"error": {"message": self.detail, "type": kind, "param": next(iter(fields), None), "code": code}}

    def response(self, path: str) -> Response:
        """The problem as an answer of its own, in the form that clients of this path expect."""
        if path.startswith("/v1/"):
            return Response(json.dumps(self.openai_content()), self.status, self.headers, "application/json")
        return Response(json.dumps(self.content()), self.status, self.headers, "application/problem+json")


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
    """Give the app one handler per family of errors, and the limit on bodies."""
    app.add_middleware(BodyLimit)

    @app.exception_handler(SoliloquyError)
    def on_domain_error(request: Request, error: SoliloquyError) -> Response:
        return to_problem(error).response(request.scope["path"])

    @app.exception_handler(RequestValidationError)
    def on_invalid_request(request: Request, error: RequestValidationError) -> Response:
        return _invalid(error.errors()).response(request.scope["path"])

    @app.exception_handler(HTTPException)
    def on_http_error(request: Request, error: HTTPException) -> Response:
        problem = Problem(error.status_code, error.detail, headers=dict(error.headers or {}))
        return problem.response(request.scope["path"])

    @app.exception_handler(Exception)
    def on_any_error(request: Request, error: Exception) -> Response:
        problem = Problem(500, "an unexpected error; the server's log has it")
        return problem.response(request.scope["path"])


def _invalid(errors: Sequence[Any]) -> Problem:
    """What pydantic found wrong, with the field, the value and the remedy in words."""
    if any(error["type"] == "json_invalid" for error in errors):
        where = errors[0]["loc"][-1]
        reason = errors[0].get("ctx", {}).get("error", "")
        return Problem(400, f"the body is not valid JSON: {reason} (character {where})")
    found = []
    for error in errors:
        name = ".".join(str(part) for part in error["loc"][1:])
        if not name:
            found.append(("body", "must be one JSON object, sent with content-type: application/json"))
        elif error["type"] == "extra_forbidden":
            found.append((name, "is not a field of this request; remove it or check its spelling"))
        else:
            found.append((name, f"{error['msg']}, not {_short(error['input'])}"))
    return Problem(422, "; ".join(f"{name}: {message}" for name, message in found[:5]), _errors(found))


def _errors(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {"errors": [{"field": name, "message": message} for name, message in found[:MAX_LISTED]]}


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"


class BodyLimit:
    """Refuses a body over `MAX_BODY_BYTES` before it is read (413). Pure ASGI: it neither buffers nor hides
    a disconnect."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the announced length, then count what comes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            await Problem(413, self._message()).response(scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY_BYTES:
                raise HTTPException(413, self._message())
            return message

        await self.app(scope, counted, send)

    @staticmethod
    def _message() -> str:
        return f"the body is over {MAX_BODY_BYTES} bytes; send a shorter prompt"
