"""What `/openapi.json` says of answers: what a stream is made of, and the refusals that any route may give.

Requests are described by their own classes. Knows nothing of how answers are made.
"""

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.answers import Done, End, Generation, OpenAIError, ProblemObject, Start, Text
from app.security.api_keys import OPEN, OPEN_FOLDERS
from app.security.rate_limit import LIMITED

REF = "#/components/schemas/{model}"
EVENTS = (
    "Server-sent events, the data of each one line of JSON: `start`, then `text` as it comes and an `end` for each "
    "sample, then `done`; or `error`, a problem object. The id of a `text`, sent as `Last-Event-ID`, asks for the "
    'rest; that of `done` is answered 204. One JSON object with `"stream": false` or `Accept: application/json`.'
)
CHUNKS = 'One JSON object; with `"stream": true`, chunks of it as server-sent events, then `[DONE]`.'
ANY = {
    400: "Not valid HTTP or JSON, or for a host that this server does not answer for.",
    408: "The request did not come in time.",
    413: "The body is too large.",
    414: "The URL is too long.",
    431: "The request's head is too large.",
    500: "Something on the server is broken; its log says what.",
}
UNUSABLE = "What was asked for cannot be used; the fields are named."
LATER = {
    429: "This client asks for too much.",
    503: "The queue is full, the work took too long, or the server stops.",
}


DATA: dict[str, type[BaseModel]] = {"start": Start, "text": Text, "end": End, "done": Done, "error": ProblemObject}
OPENAI_CHUNK = {
    "type": "object",
    "properties": {"data": {"type": "string"}, "event": {"const": "message"}},  # what one without a name is called
    "required": ["data"],
    "additionalProperties": False,
}


def install(app: FastAPI) -> None:
    """Complete the description that FastAPI makes; call it when all routes are there."""
    build = app.openapi

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            complete(build(), bool(app.state.keys))
            if root_path := app.state.service.settings.root_path:
                build()["servers"] = [{"url": root_path}]
        return build()  # kept by now

    app.openapi = describe  # type: ignore[method-assign]


def complete(document: dict[str, Any], keys: bool) -> None:
    """Add what FastAPI cannot know; `keys` if clients need one."""
    told: tuple[type[BaseModel], ...] = (*DATA.values(), OpenAIError, Generation)
    models: list[tuple[type[BaseModel], Literal["serialization"]]] = [(model, "serialization") for model in told]
    components = document["components"]
    components["schemas"] |= models_json_schema(models, ref_template=REF)[1]["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["responses"] |= refusals(path, "422" in operation["responses"])
            if keys and not _is_open(path):
                operation["security"] = [{"key": []}]
                operation["responses"]["401"] = refusal(path, "No valid key was sent.")
    for operation in document["paths"]["/generate"].values():
        content = {
            "text/event-stream": {"schema": {"oneOf": [event(*one) for one in DATA.items()]}},
            "application/json": {"schema": _ref(Generation)},
        }
        operation["responses"]["200"] = {"description": EVENTS, "content": content}
    completions = document["paths"]["/v1/completions"]["post"]["responses"]["200"]
    completions["description"] = CHUNKS
    completions["content"]["text/event-stream"] = {"schema": OPENAI_CHUNK}
    not_ready = {"application/json": {"schema": {"type": "object"}}}
    ready = document["paths"]["/health/ready"]["get"]["responses"]
    ready["503"] = {"description": "The server stops, or its generator has failed.", "content": not_ready}


def refusals(path: str, checked: bool) -> dict[str, Any]:
    """The refusals that a route may give, by status; `checked` if it takes anything."""
    found = ANY | ({422: UNUSABLE} if checked else {}) | (LATER if path in LIMITED else {})
    if path.startswith("/v1/") and checked:
        found[404] = "There is no such model here."
    return {str(status): refusal(path, words, status in LATER) for status, words in found.items()}


def refusal(path: str, words: str, retry: bool = False) -> dict[str, Any]:
    """One of them, in the form that clients of this path expect."""
    form, model = ("json", OpenAIError) if path.startswith("/v1/") else ("problem+json", ProblemObject)
    content = {f"application/{form}": {"schema": _ref(model)}}
    headers = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
    return {"description": words, "content": content} | ({"headers": headers} if retry else {})


def event(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """One kind of server-sent event. Only `text` and `done` send an id, but a reader keeps it for what follows."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _ref(model)}
    fields = {"event": {"const": name}, "data": data, "id": {"type": "string"}}
    required = list(fields) if model in (Text, Done) else ["event", "data"]
    return {"type": "object", "properties": fields, "required": required, "additionalProperties": False}


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith(OPEN_FOLDERS)
