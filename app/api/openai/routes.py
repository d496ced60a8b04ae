"""The routes below `/v1`, for OpenAI's own clients and all that speak as they do: models, and legacy completions.

A model goes by the name of its folder, which stays when its weights are replaced, and by that name with the
checkpoint's identity behind it, which does not. Answers tell the latter.
"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.dependencies import ServiceDependency
from app.api.json_response import whole
from app.api.openai.responses import CompletionAnswer
from app.api.openai.schemas import CompletionRequest
from app.api.stream_response import JobStream
from app.observability.exchange import meter_of
from app.problems import Problem
from app.security.rate_limit import claim_streams
from app.serving.engine import Engine
from app.serving.request_handle import RequestHandle
from app.serving.service import Serving
from app.settings import ServerSettings
from model.atomic_files import printable_name
from model.errors import InputError
from model.generation.receipt import FORMER
from model.generation.sequence import TextSequence

router = APIRouter(prefix="/v1")


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


@router.post("/completions", responses={200: {"content": {"text/event-stream": {}}}})
async def post_completions(body: CompletionRequest, request: Request, service: ServiceDependency) -> Response:
    """Write text after a prompt as OpenAI's clients ask: one JSON object, or chunks with `"stream": true`."""
    serving = service.current
    names = names_of(serving, service.settings)
    if body.model not in names:
        return _unknown(body.model, serving, service.settings).response(request.scope["path"])
    in_force = body.in_force(service.settings.max_new_tokens, serving.vocabulary)
    choices = in_force.streams(serving.vocabulary)
    meter = meter_of(request.scope)
    meter.asked(in_force.prompt)
    job = _submit(request, serving.engine, list(dict.fromkeys(stream for streams in choices for stream in streams)))
    about: dict[str, object] = {
        "model": names[-1],
        "system_fingerprint": f"{serving.card.checkpoint}-{serving.card.numerics}",
        "seed": in_force.seed,
    }
    answer = CompletionAnswer(job, in_force, choices, serving.vocabulary, about, meter)
    if in_force.stream:
        return JobStream(job, answer.events(), service.settings)
    return await whole(job, answer.whole(), request)


def names_of(serving: Serving, settings: ServerSettings) -> tuple[str, str]:
    """The name of whatever is served, and the name of exactly this checkpoint."""
    name = printable_name(settings.checkpoint.absolute())
    return name, f"{name}-{serving.card.checkpoint}"


def _described(name: str, serving: Serving) -> dict[str, Any]:
    trained = serving.card.trained
    created = int(datetime.fromisoformat(trained).timestamp()) if trained else 0
    return {"id": name, "object": "model", "created": created, "owned_by": "soliloquy"}


def _unknown(name: str, serving: Serving, settings: ServerSettings) -> Problem:
    names = names_of(serving, settings)
    message = f"there is no model {name!r} here; use {names[0]!r}"
    if name == f"{names[0]}-{serving.card.former}":
        message = f"model {name!r} is named by {FORMER}; use {names[1]!r}"
    errors = [{"field": "model", "message": message}]
    return Problem(404, message, {"errors": errors, "code": "model_not_found"})


def _submit(request: Request, engine: Engine, streams: list[TextSequence]) -> RequestHandle:
    """Queue the streams, if their client may have so many written.

    Raises:
        InputError: there never is room for so many; in OpenAI's word for it.
    """
    claim_streams(request, len(streams), "n")
    try:
        return engine.submit(streams)
    except InputError as error:
        raise InputError("n", error.message) from error
