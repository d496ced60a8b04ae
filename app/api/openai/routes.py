"""The routes below `/v1`, for OpenAI's own client and others that speak as it does: models, and legacy completions.

A model has two names: that of its folder, which stays when its weights are replaced, and that name followed by the
checkpoint's identity, which does not. Answers give the latter.
"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.dependencies import ServiceDependency
from app.api.json_response import buffered_json
from app.api.openai.responses import CompletionAnswer
from app.api.openai.schemas import CompletionRequest
from app.api.stream_response import EventStreamResponse
from app.observability.exchange import record_of
from app.problems import Problem
from app.security.rate_limit import claim_sequences
from app.serving.engine import Engine
from app.serving.request_handle import RequestHandle
from app.serving.service import Serving
from app.settings import ServerSettings
from model.atomic_files import printable_name
from model.errors import InputError
from model.generation.receipt import FORMER_IDENTITY
from model.generation.sequence import TextSequence

router = APIRouter(prefix="/v1")

COMPLETION_CHUNK = {  # of a stream; clients call an event without a name "message"
    "type": "object",
    "properties": {"data": {"type": "string"}, "event": {"const": "message"}},
    "required": ["data"],
    "additionalProperties": False,
}
COMPLETION_ANSWER = {
    "description": 'One JSON object; with `"stream": true`, chunks of it as server-sent events, then `[DONE]`.',
    "content": {"text/event-stream": {"schema": COMPLETION_CHUNK}},
}


@router.get("/models")
async def get_models(service: ServiceDependency) -> dict[str, Any]:
    """The names of the one model that is served."""
    names = names_of(service.current, service.settings)
    return {"object": "list", "data": [_described(name, service.current) for name in names]}


@router.get("/models/{name:path}", response_model=None)
async def get_model(name: str, request: Request, service: ServiceDependency) -> dict[str, Any] | Response:
    """One of these names."""
    names = names_of(service.current, service.settings)
    if name not in names:
        return _unknown(name, service.current, service.settings).response(request.scope["path"])
    return _described(name, service.current)


@router.post("/completions", responses={200: COMPLETION_ANSWER})
async def post_completions(body: CompletionRequest, request: Request, service: ServiceDependency) -> Response:
    """Write text after a prompt as OpenAI's clients ask: one JSON object, or chunks with `"stream": true`."""
    serving = service.current
    names = names_of(serving, service.settings)
    if body.model not in names:
        return _unknown(body.model, serving, service.settings).response(request.scope["path"])
    resolved = body.resolved(service.settings.max_new_tokens, serving.vocabulary)
    choices = resolved.sequences(serving.vocabulary)
    record = record_of(request.scope)
    record.received(resolved.prompt)
    sequences: dict[TextSequence, None] = {}  # in their order, each once: choices of one prompt share its scoring
    for choice in choices:
        sequences |= dict.fromkeys(choice)
    handle = _submit(request, serving.engine, list(sequences))
    about: dict[str, object] = {
        "model": names[-1],
        "system_fingerprint": f"{serving.card.checkpoint}-{serving.card.numerics}",
        "seed": resolved.seed,
    }
    answer = CompletionAnswer(handle, resolved, choices, serving.vocabulary, about, record)
    if resolved.stream:
        return EventStreamResponse(handle, answer.events(), service.settings)
    return await buffered_json(handle, answer.as_json(), request)


def names_of(serving: Serving, settings: ServerSettings) -> tuple[str, str]:
    """The name of whatever the folder has, and the name of exactly this checkpoint."""
    name = printable_name(settings.checkpoint.absolute())
    return name, f"{name}-{serving.card.checkpoint}"


def _described(name: str, serving: Serving) -> dict[str, Any]:
    """OpenAI's model object."""
    trained = serving.card.trained
    created = int(datetime.fromisoformat(trained).timestamp()) if trained else 0
    return {"id": name, "object": "model", "created": created, "owned_by": "soliloquy"}


def _unknown(name: str, serving: Serving, settings: ServerSettings) -> Problem:
    """The refusal of a name that no model has."""
    names = names_of(serving, settings)
    message = f"there is no model {name!r} here; use {names[0]!r}"
    if name == f"{names[0]}-{serving.card.former}":
        message = f"model {name!r} is named by {FORMER_IDENTITY}; use {names[1]!r}"
    errors = [{"field": "model", "message": message}]
    return Problem(404, message, {"errors": errors, "code": "model_not_found"})


def _submit(request: Request, engine: Engine, sequences: list[TextSequence]) -> RequestHandle:
    """Queue the sequences, if their client may have so many generated at once.

    Raises:
        InputError: there is never room for so many; names OpenAI's field, `n`.
        SoliloquyError: what `Engine.submit` raises.
    """
    claim_sequences(request, len(sequences), "n")
    try:
        return engine.submit(sequences)
    except InputError as error:
        raise InputError("n", error.message) from error
