"""The page: one template, in the language that its reader asks for, and static files. Owns what guards them."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.types import Scope

from app.card import ModelCard

ROOT = Path(__file__).parent.parent
DEFAULT_LANGUAGE = "en"
RANGE = re.compile(r"\s*([a-z]{1,8})(?:-[a-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE)
NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}
GUARDS = NO_SNIFFING | {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class PageFiles(StaticFiles):
    """Static files that a browser asks about again, so that a new version is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 if the browser has it."""
        response = await super().get_response(path, scope)
        response.headers.update(NO_SNIFFING | {"Cache-Control": "no-cache"})
        return response


def install(app: FastAPI) -> None:
    """Give the app its page and the page's files; its texts are read now."""
    app.include_router(make_router())
    app.mount("/static", PageFiles(directory=ROOT / "static"))


def make_router() -> APIRouter:
    """The route of the page. `texts.json` has one object of texts for each language."""
    texts: dict[str, dict[str, Any]] = json.loads((ROOT / "templates" / "texts.json").read_text(encoding="utf-8"))
    languages = {code: own.get("language", code) for code, own in texts.items()}
    templates, router = Jinja2Templates(ROOT / "templates"), APIRouter()
    templates.env.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    templates.env.trim_blocks = templates.env.lstrip_blocks = True

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request, lang: str | None = None) -> HTMLResponse:
        """The playground."""
        chosen = choose_language(lang, request.headers.get("accept-language", ""), texts)
        card: ModelCard = request.app.state.service.current.card
        context = {"card": card, "lang": chosen, "languages": languages, "texts": texts[chosen]}
        headers = GUARDS | {"Content-Language": chosen, "Vary": "Accept-Language"}
        return templates.TemplateResponse(request, "index.html", context, headers=headers)

    return router


def choose_language(asked: str | None, accept: str, known: Collection[str]) -> str:
    """The language asked for by name, else the best that an Accept-Language header names, else English.

    A header's `es-MX` is `es`; what it does not rank as HTTP does is passed over.
    """
    if asked in known:
        return str(asked)
    ranked: dict[str, float] = {}
    for match in filter(None, map(RANGE.fullmatch, accept.split(","))):
        ranked.setdefault(match[1].lower(), float(match[2] or 1))
    found = [code for code, quality in ranked.items() if code in known and quality > 0]
    return max(found, key=lambda code: ranked[code], default=DEFAULT_LANGUAGE)
