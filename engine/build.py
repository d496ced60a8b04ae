"""Builds static/engine/network.wasm from network.c: `python -m engine.build`.

The result is committed, so that nobody needs the compiler but who changes the source: Zig's C compiler, of the one
version that the extra `engine` installs, since another may give other bytes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "network.c"
RESULT = Path(__file__).parent.parent / "static" / "engine" / "network.wasm"
MAX_BYTES = 64_000
FLAGS = (
    "-target", "wasm32-freestanding",
    "-O3",
    "-msimd128",  # not relaxed SIMD, whose results may differ from machine to machine
    "-mbulk-memory",
    "-mnontrapping-fptoint",
    "-ffp-contract=off",  # no fused multiply-add
    "-fno-builtin",  # no calls of a C library
    "-nostdlib",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wl,--no-entry",
    "-Wl,--strip-all",
)  # fmt: skip


def build(result: Path) -> None:
    """Compile the source.

    Raises:
        subprocess.CalledProcessError: the compiler refuses it; or there is no compiler.
    """
    # A result is a function of the source's text: neither its folder nor the place of the result is in it.
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "network.wasm"
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, "-o", str(built), SOURCE.name]
        subprocess.run(command, cwd=SOURCE.parent, check=True)
        result.write_bytes(built.read_bytes())


if __name__ == "__main__":
    build(RESULT)
    print(f"{RESULT.name}: {RESULT.stat().st_size:,} bytes")
