"""Completes `/openapi.json` by what no route says: the events of a stream, and refusals that any route may give.

Requests are described by their own models, and answers by `app/api/answers.py` and `app/problems.py`. Knows nothing
of how answers are made.
"""

from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.answers import Done, End, Generation, Start, Text, Waiting
from app.problems import OpenAIError, ProblemObject, is_openai
from app.security.api_keys import is_open
from app.security.rate_limit import LIMITED

REF = "#/components/schemas/{model}"
EVENTS = (
    "Server-sent events, the data of each one line of JSON: `start`, then `waiting` while no slot is free, `text` "
    "as it comes and an `end` for each sample, then `done`; or `error`, a problem object. The id of a `text`, sent "
    "as `Last-Event-ID`, asks for the rest; that of `done` is answered 204. One JSON object with "
    '`"stream": false` or `Accept: application/json`.'
)
DATA: dict[str, type[BaseModel]] = {
    "start": Start,
    "waiting": Waiting,
    "text": Text,
    "end": End,
    "done": Done,
    "error": ProblemObject,
}
MODELS: tuple[type[BaseModel], ...] = (*DATA.values(), OpenAIError, Generation)

ANY_ROUTE = {
    400: "Not valid HTTP or JSON, or for a host that this server does not answer for.",
    408: "The request did not come in time.",
    413: "The body is too large.",
    414: "The URL is too long.",
    431: "The request's head is too large.",
    500: "Something on the server is broken; its log says what.",
}
UNUSABLE = "What was asked for cannot be used; the fields are named."
TRY_LATER = {
    429: "This client asks for too much.",
    503: "The queue is full, the work took too long, or the server stops.",
}


def complete(document: dict[str, Any], needs_key: bool) -> None:
    """Add to FastAPI's document, in place, the refusals and the events; `needs_key` if clients must send a key."""
    components = document["components"]
    components["schemas"] |= _schemas()
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, which is never sent
        components["schemas"].pop(name, None)
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"] |= refusals(path, "422" in operation["responses"])
            if needs_key and not is_open(path):
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = refusal(path, "No valid key was sent.")
    for operation in document["paths"]["/generate"].values():
        events = [event(name, model) for name, model in DATA.items()]
        content = {
            "text/event-stream": {"schema": {"oneOf": events}},
            "application/json": {"schema": _ref(Generation)},
        }
        operation["responses"]["200"] = {"description": EVENTS, "content": content}


def _schemas() -> dict[str, Any]:
    """The JSON schemas of `MODELS`, and of all that they contain, by name."""
    mode: Literal["serialization"] = "serialization"
    _, definitions = models_json_schema([(model, mode) for model in MODELS], ref_template=REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def refusals(path: str, is_checked: bool) -> dict[str, Any]:
    """The refusals that a route may give, by status; `is_checked` if it has a body or parameters to validate."""
    descriptions = dict(ANY_ROUTE)
    if is_checked:
        descriptions[422] = UNUSABLE
    if path in LIMITED:
        descriptions |= TRY_LATER
    if is_checked and is_openai(path):
        descriptions[404] = "There is no such model here."
    return {str(status): refusal(path, text, status in TRY_LATER) for status, text in descriptions.items()}


def refusal(path: str, description: str, has_retry_after: bool = False) -> dict[str, Any]:
    """One of them, in the form that clients of this path expect."""
    if is_openai(path):
        content = {"application/json": {"schema": _ref(OpenAIError)}}
    else:
        content = {"application/problem+json": {"schema": _ref(ProblemObject)}}
    described: dict[str, Any] = {"description": description, "content": content}
    if has_retry_after:
        described["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return described


def event(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """One kind of server-sent event. Only `text` and `done` send an id, but a reader keeps it for what follows."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _ref(model)}
    fields = {"event": {"const": name}, "data": data, "id": {"type": "string"}}
    required = list(fields) if model in (Text, Done) else ["event", "data"]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
