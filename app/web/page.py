"""The pages, each in several languages, static files, and the API's documentation page.

Owns which language a reader gets, and the security policies but that of a single file (`single_file.py`). Knows
nothing of generation.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.templating import Jinja2Templates

from app.api.schemas import GenerateRequest
from app.serving.model_card import ModelCard
from app.settings import ServerSettings, listed
from app.web.files import PageFiles
from app.web.qr_code import router as qr_code_router
from app.web.recording import Recorder
from app.web.recording import make_router as make_recording_router
from app.web.single_file import SingleFile
from app.web.weights import BrowserWeights
from app.web.weights import make_router as make_weights_router

Texts = dict[str, dict[str, Any]]

ROOT = Path(__file__).parent.parent.parent
# The templates; a site without a server has pages of these names.
PLAYGROUND = "index.html"
VERIFY = "verify.html"
DEFAULT_LANGUAGE = "en"
PANEL_FACTS = frozenset({"baselines", "curve", "preset", "seconds", "steps", "trained", "val_method"})  # of `/info`
LANGUAGE_RANGE = re.compile(  # of an Accept-Language header, such as "es-MX;q=0.8"
    r"\s*(?P<code>[a-z]{1,8})(?:-[a-z0-9-]*)?\s*(?:;\s*q=(?P<quality>[01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
ALONE_POLICY = (  # in the page itself, since a static host sends no headers of ours
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'"
)
SWAGGER = ("fastapi_offline", "static")  # the package that brings Swagger UI's files, and their folder in it
INDENTATION = re.compile(r"\n[ \t]+")
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI) -> None:
    """Add the page, its files and the API's documentation page to the app; templates and texts are read now."""
    texts = read_texts()
    recorder = Recorder(app.state.service, beginnings(texts, app.state.service.current.card.dataset))
    app.state.recorder = recorder
    app.include_router(make_router(texts))
    app.include_router(make_recording_router(recorder))
    app.include_router(make_weights_router(BrowserWeights(app.state.service)))
    app.include_router(qr_code_router)
    app.include_router(make_docs_router(app.title))
    app.mount("/static", PageFiles(directory=ROOT / "static", packages=[SWAGGER]))


def read_texts() -> Texts:
    """The texts of the page: one object for each language."""
    texts: Texts = json.loads((ROOT / "templates" / "texts.json").read_text(encoding="utf-8"))
    return texts


def beginnings(texts: Texts, dataset: dict[str, Any] | None) -> list[str]:
    """The examples that the page offers for a data set, if there are any."""
    name = str((dataset or {}).get("name", "")).lower().replace(" ", "")
    examples: dict[str, list[str]] = texts[DEFAULT_LANGUAGE]["examples"]
    return examples.get(name, [])


def make_router(texts: Texts) -> APIRouter:
    """The routes of the pages, and of the texts that they need once their reader does something."""
    languages = {code: translated.get("language", code) for code, translated in texts.items()}
    templates = make_templates()
    router = APIRouter()

    def answer(template: str, request: Request, lang: str | None) -> HTMLResponse:
        chosen = choose_language(lang, request.headers.get("accept-language", ""), texts)
        state = request.app.state
        root_path = state.service.settings.root_path
        root = f"{root_path}/" if root_path else ""
        query = f"?lang={chosen}" if lang == chosen else ""  # whoever has chosen a language keeps it
        card = state.service.current.card
        context = {
            "card": card,
            "facts": first_facts(card),
            "numbers": number_limits(state.service.settings.max_new_tokens),
            "keys": bool(state.keys),
            "lang": chosen,
            "languages": languages,
            "texts": texts[chosen],
            "root": root,
            "home": (root or "./") + query,
            "verify_address": f"{root}verify{query}",
            "address": f"{request.url.scheme}://{request.url.netloc}{root_path}/",  # which previews of links want
        }
        headers = {
            "Content-Security-Policy": policy(state.service.settings),
            "Content-Language": chosen,
            "Vary": "Accept-Language",
        }
        return HTMLResponse(render(templates, template, context), headers=headers)

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page(request: Request, lang: str | None = None) -> HTMLResponse:
        """The playground."""
        return answer(PLAYGROUND, request, lang)

    @router.get("/verify", response_class=HTMLResponse, include_in_schema=False)
    def verify(request: Request, lang: str | None = None) -> HTMLResponse:
        """The page that writes a receipt's text again, on the reader's device, and compares."""
        return answer(VERIFY, request, lang)

    @router.get("/texts", include_in_schema=False)
    def panel_texts(lang: str = DEFAULT_LANGUAGE) -> JSONResponse:
        """The texts of what a reader opens, which are no part of the first sight."""
        found = texts.get(lang, texts[DEFAULT_LANGUAGE])
        return JSONResponse(found["panels"], headers={"Cache-Control": "no-cache"})

    return router


def render_alone(card: ModelCard, lang: str, max_new_tokens: int, single: SingleFile | None = None) -> str:
    """The page of a site that has no server, in one language: it writes on the reader's device only.

    Args:
        single: what stands in the page, if it is to be one file.
    """
    texts = read_texts()[lang]
    script = texts["script"] | texts["panels"] | (texts["verify"] if single else {})
    context = _context_alone(card, lang, texts | {"script": script}) | {
        "numbers": number_limits(max_new_tokens),
        "verify_address": "#verify" if single else VERIFY,
        "policy": single.policy if single else ALONE_POLICY,
        "single": single,
    }
    return render(make_templates(), PLAYGROUND, context)


def render_verify_alone(card: ModelCard, lang: str) -> str:
    """The page that verifies, of a site that has no server."""
    return render(make_templates(), VERIFY, _context_alone(card, lang, read_texts()[lang]) | {"home": "./"})


def _context_alone(card: ModelCard, lang: str, texts: dict[str, Any]) -> dict[str, Any]:
    return {
        "card": card,
        "facts": card.content() | {"serverless": True},
        "keys": False,
        "lang": lang,
        "languages": {},
        "texts": texts,
        "root": "",
        "policy": ALONE_POLICY,
    }


def render(templates: Jinja2Templates, name: str, context: dict[str, Any]) -> str:
    """A page without the indentation of its lines: it has no element in which that would be seen."""
    return INDENTATION.sub("\n", templates.get_template(name).render(context))


def make_templates() -> Jinja2Templates:
    """The templates, read when they are needed."""
    templates = Jinja2Templates(ROOT / "templates")
    templates.env.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    templates.env.trim_blocks = True
    templates.env.lstrip_blocks = True
    return templates


def first_facts(card: ModelCard) -> dict[str, Any]:
    """What the page has of the model at first; its panel about the model gets the rest from /info."""
    return {name: value for name, value in card.content().items() if name not in PANEL_FACTS}


def policy(settings: ServerSettings) -> str:
    """The page's security policy; the pages that may show it in a frame are those of a setting."""
    return POLICY + (" ".join(listed(settings.frame_ancestors)) or "'none'")


def number_limits(max_new_tokens: int) -> dict[str, dict[str, int | None]]:
    """The lowest, highest and default value of each number field of the page, by the fields' limits in the API.

    The default of `seed`, which the server draws, is None. `max_new_tokens` is the most that this server writes.
    """
    found: dict[str, dict[str, int | None]] = {}
    for name in ("max_new_tokens", "num_samples", "seed"):
        field = GenerateRequest.model_fields[name]
        limits: dict[str, int] = {}
        for limit in field.metadata:
            limits |= asdict(limit)
        high = limits["le"] if "le" in limits else limits["lt"] - 1
        found[name] = {"low": limits["ge"], "high": high, "default": field.default}
    default = GenerateRequest.model_fields["max_new_tokens"].default
    found["max_new_tokens"]["high"] = max_new_tokens
    found["max_new_tokens"]["default"] = min(default, max_new_tokens)
    return found


def make_docs_router(title: str) -> APIRouter:
    """The route of FastAPI's documentation page, with Swagger UI from this server: it needs no Internet."""
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
        """The documentation of the API."""
        return page

    return router


def choose_language(requested: str | None, accept: str, known: Collection[str]) -> str:
    """The language of the `lang` parameter, else the best known one of an Accept-Language header, else English.

    `es-MX` in the header counts as `es`; parts of it that are not valid are ignored.
    """
    if requested is not None and requested in known:
        return requested
    qualities: dict[str, float] = {}
    for part in accept.split(","):
        match = LANGUAGE_RANGE.fullmatch(part)
        if match is not None:
            qualities.setdefault(match["code"].lower(), float(match["quality"] or 1))
    best = DEFAULT_LANGUAGE
    best_quality = 0.0
    for code, quality in qualities.items():
        if code in known and quality > best_quality:
            best = code
            best_quality = quality
    return best
