"""What stands in the page where it is one file, which opens from a disk: its styles, its script, and other files.

Owns the security policy of such a page: it runs this script alone, and may fetch nothing at all.
"""

import base64
import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.web.files import WORKER, slimmed
from app.web.linked_modules import link_modules

STYLES = ("style.css", "panels.css")
MAIN_MODULE = "main.js"
ENGINE = "engine/network.wasm"
SINGLE_FILE_POLICY = (
    "default-src 'none'; script-src '{script}' 'wasm-unsafe-eval'; style-src '{styles}'; img-src data:; "
    "worker-src blob:; base-uri 'none'; form-action 'none'"
)


@dataclass(frozen=True)
class HeldFile:
    """A file in a page: its name, its size in bytes, and its content, compressed and as base64."""

    name: str
    size: int
    packed: str

    @classmethod
    def of(cls, name: str, content: bytes) -> "HeldFile":
        """A file with this content; always the same for the same."""
        return cls(name, len(content), base64.b64encode(gzip.compress(content, mtime=0)).decode())


@dataclass(frozen=True)
class SingleFile:
    """What stands in a page that is one file; `icon` is base64."""

    styles: str
    script: str
    icon: str
    files: tuple[HeldFile, ...]

    @classmethod
    def of(cls, static: Path, files: Mapping[str, bytes]) -> "SingleFile":
        """The page's own parts, from its folder of static files, and others by their names.

        The others come last: if a copy of the page is cut off, the rest of it can still say so.
        """
        worker = link_modules(static, WORKER).encode()
        held = [
            HeldFile.of(f"static/{WORKER}", worker),
            HeldFile.of(f"static/{ENGINE}", (static / ENGINE).read_bytes()),
        ]
        held += [HeldFile.of(name, content) for name, content in files.items()]
        styles = [slimmed(static / name, (static / name).stat().st_mtime_ns) for name in STYLES]
        icon = base64.b64encode((static / "favicon.svg").read_bytes()).decode()
        return cls("\n".join(styles), link_modules(static, MAIN_MODULE), icon, tuple(held))

    @property
    def policy(self) -> str:
        """The page's security policy."""
        return SINGLE_FILE_POLICY.format(script=_hash_of(self.script), styles=_hash_of(self.styles))


def _hash_of(text: str) -> str:
    """How a security policy names a script or a style in the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
