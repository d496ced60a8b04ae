"""Refusals: each as an RFC 9457 problem object, or below /v1 as OpenAI's error object. Owns the fields of both.

No refusal says anything of files, code or other clients.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
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

# What pydantic's types of errors about a bound call the bound.
BOUNDS = {"less_than": "lt", "less_than_equal": "le", "greater_than": "gt", "greater_than_equal": "ge"}
MAX_LISTED = 100  # fields or characters named in one refusal
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


class _Described(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class FieldError(_Described):
    """One field that cannot be used."""

    field: str
    message: str


class ProblemObject(_Described):
    """A refusal (RFC 9457); `errors`, `characters` and `retry_after` where they say more."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class OpenAIErrorDetail(_Described):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(_Described):
    """A refusal as OpenAI's clients expect it."""

    error: OpenAIErrorDetail


@dataclass(frozen=True)
class Problem:
    """A status and a sentence; further fields of the problem object (`extra`), and headers of the answer.

    Its objects are made without validation: a field's name in them may be any text, also one that is not Unicode.
    """

    status: int
    detail: str
    extra: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> dict[str, Any]:
        """The fields of a `ProblemObject`, then those of `extra`."""
        problem = ProblemObject.model_construct(
            type="about:blank", title=HTTPStatus(self.status).phrase, status=self.status, detail=self.detail
        )
        return problem.model_dump(exclude_unset=True) | self.extra

    def openai_content(self) -> dict[str, Any]:
        """The fields of an `OpenAIError`; `param` is the first field at fault."""
        errors = self.extra.get("errors", [])
        detail = OpenAIErrorDetail.model_construct(
            message=self.detail,
            type="invalid_request_error" if self.status < 500 else "server_error",
            param=errors[0]["field"] if errors else None,
            code=self.extra.get("code", OPENAI_CODES.get(self.status)),
        )
        return OpenAIError.model_construct(error=detail).model_dump()

    def response(self, path: str) -> Response:
        """The refusal as an HTTP response, in the form that clients of this path expect."""
        if is_openai(path):
            return Response(json.dumps(self.openai_content()), self.status, self.headers, "application/json")
        return Response(json.dumps(self.content()), self.status, self.headers, "application/problem+json")


def is_openai(path: str) -> bool:
    """Whether clients of this path are OpenAI's, or probably are: such a client often has the wrong base URL."""
    return path == "/v1" or path.startswith("/v1/") or path.rstrip("/").endswith(OPENAI_ENDINGS)


def _no_route(path: str) -> str:
    """The detail of a 404. It does not quote the path, which may be any text."""
    there = "POST /v1/completions writes text after a prompt, GET /v1/models lists the model"
    if path.rstrip("/").endswith("/chat/completions"):
        return f"this model continues texts, it does not chat: there is no /v1/chat/completions; {there}"
    if path.rstrip("/").endswith(OPENAI_ROUTES):
        return f"there is nothing at this path: use http://HOST:PORT/v1 as the client's base URL; {there}"
    if is_openai(path):
        return f"there is nothing at this path; {there}"
    return "there is nothing at this path; /docs describes what there is"


def to_problem(error: SoliloquyError) -> Problem:
    """The refusal that a client gets for a domain error."""
    if isinstance(error, UnknownCharactersError):
        listed = [vars(one) for one in error.unknown[:MAX_LISTED]]
        extra: dict[str, Any] = {"characters": listed, "unknown_count": len(error.unknown)}
        return Problem(422, str(error), _errors([(error.field, error.message)]) | extra)
    if isinstance(error, InputError):
        return Problem(422, str(error), _errors([(error.field, error.message)]))
    if isinstance(error, UnavailableError):
        retry = error.retry_after
        return Problem(503, str(error), {"retry_after": retry}, {"Retry-After": str(retry)})
    if isinstance(error, CheckpointError):  # its message names files
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
    """The methods of all routes of a path, not only of the first; and HEAD wherever there is GET."""
    found: set[str] = set()
    root_path = scope.get(
        "app_root_path", scope.get("root_path", "")
    )  # a mount, as of files, has changed the latter
    for route in app.routes:
        methods = ("GET",) if isinstance(route, Mount) else ("GET", "POST")
        for method in methods:
            match, _ = route.matches({**scope, "root_path": root_path, "method": method})
            if match is Match.FULL:
                found.add(method)
    if "GET" in found:
        found.add("HEAD")
    return found


def _invalid(errors: Sequence[Any]) -> Problem:
    """The refusal of a request that pydantic found invalid: names each field, its value and what would be valid."""
    if any(error["type"] == "json_invalid" for error in errors):
        where = errors[0]["loc"][-1]
        reason = errors[0].get("ctx", {}).get("error", "")
        return Problem(400, f"the body is not valid JSON: {reason} (character {where})")
    found: list[tuple[str, str]] = []
    for error in errors:
        name = ".".join(str(part) for part in error["loc"][1:])
        if len(error["loc"]) < 2 and error["type"] == "string_unicode":
            found.append(("body", "has a field whose name is not valid Unicode"))
        elif len(error["loc"]) < 2:
            found.append(("body", "must be one JSON object, sent with content-type: application/json"))
        elif error["type"] == "extra_forbidden":
            found.append((name, "is not a field of this request; remove it or check its spelling"))
        else:
            found.append((name, f"{_message_with_exact_bound(error)}, not {_short(error['input'])}"))
    return Problem(422, "; ".join(f"{name}: {message}" for name, message in found[:5]), _errors(found))


def _message_with_exact_bound(error: Any) -> str:
    """The message of pydantic's error, with its bound in full: it rounds whole numbers of more than 16 digits."""
    message: str = error["msg"]
    bound = error.get("ctx", {}).get(BOUNDS.get(error["type"], ""))
    return f"{message.rpartition(' ')[0]} {bound}" if isinstance(bound, int) else message


def _unreadable(cause: BaseException | None) -> str | None:
    """Why a body cannot be parsed, by the exception behind FastAPI's own; None if it is another error."""
    reasons = (
        (UnicodeDecodeError, "it is not UTF-8"),
        (RecursionError, "it is nested too deep"),
        (ValueError, "a number in it has too many digits"),
    )
    for kind, reason in reasons:
        if isinstance(cause, kind):
            return f"the body is not valid JSON: {reason}"
    return None


def _errors(found: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The field `errors` of a problem object, of pairs of a field's name and what is wrong with it."""
    errors = [FieldError.model_construct(field=name, message=message) for name, message in found[:MAX_LISTED]]
    return {"errors": [error.model_dump() for error in errors]}


def _short(value: object) -> str:
    """A value in ASCII, as Python writes it, shortened if it is long."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
