"""The page: one template, in the language that its reader asks for, and static files. Owns what guards them."""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from starlette.types import Scope

from app.api.schemas import GenerateRequest

ROOT = Path(__file__).parent.parent.parent
DEFAULT_LANGUAGE = "en"
RANGE = re.compile(r"\s*([a-z]{1,8})(?:-[a-z0-9-]*)?\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SWAGGER = ("fastapi_offline", "static")  # the package that brings Swagger UI's files, and their folder in it
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class PageFiles(StaticFiles):
    """Static files that a browser asks about again, so that a new version is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file, or 304 if the browser has it."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    """Give the app its page, the page's files and the API's page; texts are read now."""
    app.include_router(make_router())
    app.include_router(make_docs_router(app.title))
    app.mount("/static", PageFiles(directory=ROOT / "static", packages=[SWAGGER]))


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
        state = request.app.state
        root_path = state.service.settings.root_path
        context = {
            "card": state.service.current.card,
            "numbers": numbers(state.service.settings.max_new_tokens),
            "keys": bool(state.keys),
            "lang": chosen,
            "languages": languages,
            "texts": texts[chosen],
            "root": f"{root_path}/" if root_path else "",
        }
        headers = {"Content-Security-Policy": POLICY, "Content-Language": chosen, "Vary": "Accept-Language"}
        return templates.TemplateResponse(request, "index.html", context, headers=headers)

    return router


def numbers(longest: int) -> dict[str, dict[str, int | None]]:
    """Lowest, highest and default value of each number that the page lets type, as the API has them; the default of
    one that the server draws is None. `longest` is the most that this server writes."""
    found: dict[str, dict[str, int | None]] = {}
    for name in ("max_new_tokens", "num_samples", "seed"):
        field = GenerateRequest.model_fields[name]
        limits: dict[str, int] = {}
        for limit in field.metadata:
            limits |= asdict(limit)
        high = limits["le"] if "le" in limits else limits["lt"] - 1
        found[name] = {"low": limits["ge"], "high": high, "default": field.default}
    written = found["max_new_tokens"]
    written |= {"high": longest, "default": min(GenerateRequest.model_fields["max_new_tokens"].default, longest)}
    return found


def make_docs_router(title: str) -> APIRouter:
    """The route of the API's page: FastAPI's, with Swagger UI from this server, for many have no way to another."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=title,
        swagger_js_url="static/swagger-ui-bundle.js",
        swagger_css_url="static/swagger-ui.css",
        swagger_favicon_url="static/favicon.svg",
    )
    [inline] = SCRIPT.findall(bytes(page.body).decode())
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    router = APIRouter()

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """What can be asked for, to try out."""
        return page

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
