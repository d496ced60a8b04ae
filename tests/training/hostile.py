"""Damaged files of nanoGPT's, imported one after another in bounded memory: `python -m tests.training.hostile`.

Prints one line for each import that was neither right nor refused in one line.
"""

import contextlib
import io
import random
import resource
import shutil
import sys
import traceback
import zipfile
from pathlib import Path

from model.checkpoint import read_checkpoint
from model.cli import run
from training.import_nanogpt import ImportSettings, import_nanogpt

EXTRA_BYTES = 1 << 30  # of address space beyond what the process has when it begins
CHUNKS = [
    b"\xff" * 8,
    b"\x00" * 8,
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\x7f",
    b"(",
    b"R",
    b"\x8f",
    b"c",
    b"\x93",
    b"Q",
    b".",
]


def mutate(content: bytes, generator: random.Random) -> bytes:
    """The content, changed, cut out, doubled or cut off at one to three positions."""
    changed = bytearray(content)
    for _ in range(generator.randint(1, 3)):
        position = generator.randrange(len(changed) or 1)
        match generator.randrange(5):
            case 0:
                changed[position : position + 1] = bytes([generator.randrange(256)])
            case 1:
                chunk = generator.choice(CHUNKS)
                changed[position : position + len(chunk)] = chunk
            case 2:
                del changed[position : position + generator.randint(1, 40)]
            case 3:
                changed[position:position] = changed[position : position + generator.randint(1, 400)]
            case _:
                del changed[max(position, 1) :]
    return bytes(changed)


def mutate_checkpoint(content: bytes, generator: random.Random) -> bytes:
    """A mutated file, or a valid archive of mutated entries."""
    if generator.random() < 0.3:
        return mutate(content, generator)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(written, "w") as new:
        for entry in archive.infolist():
            part = archive.read(entry)
            new.writestr(entry.filename, mutate(part, generator) if entry.filename.endswith("data.pkl") else part)
    return written.getvalue()


def limit_memory() -> None:
    """Let this process have `EXTRA_BYTES` more than it has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + EXTRA_BYTES,) * 2)


def find_fault(folder: Path) -> str | None:
    """Import the folder's files; return what was wrong about the result, or None."""
    errors = io.StringIO()
    flags = [f"--ckpt={folder / 'ckpt.pt'}", f"--meta={folder / 'meta.pkl'}", f"--out_dir={folder / 'out'}"]
    shutil.rmtree(folder / "out", ignore_errors=True)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            code = run(ImportSettings, import_nanogpt, flags)
        if code == 0:
            read_checkpoint(folder / "out")
    except Exception:  # noqa: BLE001 - whatever it is, it is the finding
        return traceback.format_exc()
    if code == 0:
        return None
    if code != 2 or errors.getvalue().count("\n") != 1:
        return f"exit code {code}: {errors.getvalue()!r}"
    return f"something was written: {errors.getvalue()}" if (folder / "out").exists() else None


def main(folder: Path, count: int) -> None:
    """Damage the folder's two files `count` times each."""
    limit_memory()
    generator = random.Random(0)
    checkpoint = (folder / "ckpt.pt").read_bytes()
    meta = (folder / "meta.pkl").read_bytes()
    for case in range(2 * count):
        of_meta = case % 2
        (folder / "ckpt.pt").write_bytes(checkpoint if of_meta else mutate_checkpoint(checkpoint, generator))
        (folder / "meta.pkl").write_bytes(mutate(meta, generator) if of_meta else meta)
        fault = find_fault(folder)
        if fault is not None:
            print(f"case {case}: {fault}")
    print("done")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
