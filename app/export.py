"""Writes a site that needs no server: the page, the engine and a checkpoint's weights.

`python -m app.export --out=site` writes a folder for any static host. The page writes on the reader's device, by
itself; a service worker keeps its files, so that it opens without a network, too.
`python -m app.export --single_file=soliloquy.html` writes all of it into one file, which opens from a disk.
What needs a server is left out: the API, and QR codes.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from app.serving.model_card import ModelCard
from app.serving.snapshots import SnapshotStore, run_of
from app.settings import ServerSettings
from app.web.page import PLAYGROUND, ROOT, VERIFY, render_alone, render_verify_alone
from app.web.single_file import SingleFile
from model.atomic_files import names_in, replacing_file
from model.browser_index import browser_index
from model.browser_weights import browser_weights
from model.checkpoint import Checkpoint, read_checkpoint
from model.cli import SettingsPath, run, settings_config
from model.device import Numerics
from model.errors import InputError
from model.flags import ProgramSettings

SERVICE_WORKER = "offline.js"
LIST_OF_FILES = "files.json"  # which the service worker keeps


class ExportSettings(ProgramSettings):
    """Write a site that writes texts without a server."""

    model_config = settings_config("app.export", "SOLILOQUY_EXPORT_")

    checkpoint: SettingsPath = Path("checkpoints/shakespeare-char")
    """Checkpoint folder"""
    out: SettingsPath | None = None
    """Folder to write, for a static host; it must not exist, or be empty"""
    single_file: SettingsPath | None = None
    """File to write, a page that opens by a double click; it must not exist"""
    lang: Literal["en", "es"] = "en"
    """Language of the page"""


def export(settings: ExportSettings) -> None:
    """Write the folder, the file, or both."""
    out = settings.out
    single_file = settings.single_file
    if out is None and single_file is None:
        raise InputError("out", "name a folder to write, --out=site, or a file, --single_file=soliloquy.html")
    if out is not None and (out.is_file() or (out.is_dir() and names_in(out))):
        raise InputError("out", f"{out} already exists, and is not empty; use another folder")
    if single_file is not None and single_file.exists():
        raise InputError("single_file", f"{single_file} already exists; use another name")
    numerics = Numerics("cpu", "int8")
    checkpoint = read_checkpoint(settings.checkpoint)
    snapshots = SnapshotStore(settings.checkpoint, numerics)
    card = ModelCard.of(checkpoint, numerics, snapshots.steps)
    files = model_files(checkpoint, snapshots)
    if out is not None:
        write_site(out, card, files, settings.lang)
    if single_file is not None:
        write_single_file(single_file, card, files, settings.lang)


def write_site(out: Path, card: ModelCard, files: Mapping[str, bytes], lang: str) -> None:
    """Write the folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(card, files, lang):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    version = _list_files(out)
    source = (ROOT / "static" / "engine" / SERVICE_WORKER).read_text(encoding="utf-8")
    worker = source.replace('VERSION = "none"', f'VERSION = "{version}"')
    (out / SERVICE_WORKER).write_text(worker, encoding="utf-8")
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {total:,} bytes; any static host will do, such as python -m http.server")


def write_single_file(path: Path, card: ModelCard, files: Mapping[str, bytes], lang: str) -> None:
    """Write the file."""
    single = SingleFile.of(ROOT / "static", files)
    page = render_alone(card, lang, max_new_tokens(), single).encode()
    with replacing_file(path) as new:
        new.write_bytes(page)
    print(f"{path}: {len(page):,} bytes; a double click opens it")


def files_of(card: ModelCard, files: Mapping[str, bytes], lang: str) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each file of the site, but what the service worker is and needs."""
    yield PLAYGROUND, render_alone(card, lang, max_new_tokens()).encode()
    yield VERIFY, render_verify_alone(card, lang).encode()
    yield from files.items()
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


def model_files(checkpoint: Checkpoint, snapshots: SnapshotStore) -> dict[str, bytes]:
    """What the page computes from, by the names under which it asks for it."""
    files = {f"weights/{checkpoint.identity}": browser_weights(checkpoint)}
    if checkpoint.index is not None:
        files[f"index/{checkpoint.identity}"] = browser_index(checkpoint)
    found: list[dict[str, Any]] = []
    last: Checkpoint | None = None
    for step, snapshot in snapshots.checkpoints():
        last = snapshot
        files[f"weights/{snapshot.identity}"] = browser_weights(snapshot)
        default_prompt = snapshot.vocabulary.default_prompt
        found.append({"step": step, "identity": snapshot.identity, "default_prompt": default_prompt})
    if last is not None:
        files["snapshots.json"] = json.dumps(run_of(last) | {"snapshots": found}).encode()
    return files


def max_new_tokens() -> int:
    """The most characters that the page offers to write: as many as a server does."""
    default: int = ServerSettings.model_fields["max_new_tokens"].default
    return default


def _list_files(folder: Path) -> str:
    """Write the list of what the service worker keeps; return a version that changes with any of it."""
    digest = hashlib.sha256()
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
            digest.update(names[-1].encode() + b"\n" + path.read_bytes())
    files = [".", *[name for name in names if name not in (PLAYGROUND, SERVICE_WORKER)]]
    (folder / LIST_OF_FILES).write_text(json.dumps(files), encoding="utf-8")
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(run(ExportSettings, export, sys.argv[1:]))
