"""Writes a site that needs no server: the page, the engine and a checkpoint's weights, for any static host.

`python -m app.export --out=site` writes a folder. The page writes on the reader's device, by itself; a service
worker keeps its files, so that it opens without a network, too. What needs a server is left out: the report, the
snapshots, the API.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from app.serving.model_card import ModelCard
from app.settings import ServerSettings
from app.web.page import ROOT, render_alone
from model.atomic_files import names_in
from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import Numerics
from model.errors import InputError
from model.flags import ProgramSettings

PAGE = "index.html"
SERVICE_WORKER = "offline.js"
LIST_OF_FILES = "files.json"  # which the service worker keeps


class ExportSettings(ProgramSettings):
    """Write a site that writes texts without a server."""

    model_config = settings_config("app.export", "SOLILOQUY_EXPORT_")

    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    out: SettingsPath
    """Folder to write; it must not exist, or be empty"""
    lang: Literal["en", "es"] = "en"
    """Language of the page"""


def export(settings: ExportSettings) -> None:
    """Write the folder."""
    if settings.out.is_file() or (settings.out.is_dir() and names_in(settings.out)):
        raise InputError("out", f"{settings.out} already exists, and is not empty; use another folder")
    checkpoint = read_checkpoint(settings.checkpoint, with_index=False)
    card = ModelCard.of(checkpoint, Numerics("cpu", "int8"))
    settings.out.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(checkpoint, card, settings.lang):
        path = settings.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    version = _list_files(settings.out)
    source = (ROOT / "static" / "engine" / SERVICE_WORKER).read_text(encoding="utf-8")
    worker = source.replace('VERSION = "none"', f'VERSION = "{version}"')
    (settings.out / SERVICE_WORKER).write_text(worker, encoding="utf-8")
    total = sum(path.stat().st_size for path in settings.out.rglob("*") if path.is_file())
    print(f"{settings.out}: {total:,} bytes; any static host will do, such as python -m http.server")


def files_of(checkpoint: Checkpoint, card: ModelCard, lang: str) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each file of the site, but what the service worker is and needs."""
    max_new_tokens = ServerSettings.model_fields["max_new_tokens"].default
    yield PAGE, render_alone(card, lang, max_new_tokens).encode()
    yield f"weights/{card.identity}", browser_weights(checkpoint)
    manifest = {
        "name": "Soliloquy",
        "start_url": ".",
        "display": "standalone",
        "icons": [{"src": "static/favicon.svg", "sizes": "any", "type": "image/svg+xml"}],
    }
    yield "manifest.webmanifest", json.dumps(manifest).encode()
    static = ROOT / "static"
    for path in sorted(static.rglob("*.*")):
        if path.is_file() and not path.name.endswith(".d.ts") and path.name != SERVICE_WORKER:
            yield f"static/{path.relative_to(static).as_posix()}", path.read_bytes()


def _list_files(folder: Path) -> str:
    """Write the list of what the service worker keeps; return a version that changes with any of it."""
    digest = hashlib.sha256()
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
            digest.update(names[-1].encode() + b"\n" + path.read_bytes())
    files = [".", *[name for name in names if name not in (PAGE, SERVICE_WORKER)]]
    (folder / LIST_OF_FILES).write_text(json.dumps(files), encoding="utf-8")
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(run(ExportSettings, export, sys.argv[1:]))
