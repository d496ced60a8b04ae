import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching, config

from model import jit
from model.jit import SOURCES, compile_and_call
from model.sampling.ngram_kernels import propose

MODEL = Path(jit.__file__).parent
MARK = re.compile(r"^(import|from) numba|^@kernel_jit", re.MULTILINE)  # of a file with compiled code


def test_the_digest_is_of_every_file_that_compiled_code_is_made_of() -> None:
    """A file that is left out would go on running from the disk as it was before a change."""
    hashed: set[Path] = set()
    for pattern in SOURCES:
        hashed.update(MODEL.glob(pattern))
    compiled = [path for path in MODEL.rglob("*.py") if MARK.search(path.read_text())]
    assert len(compiled) > 5
    assert set(compiled) <= hashed


def make_double() -> Callable[[np.ndarray], None]:
    """Return a new function each time, as another process has one."""

    def double(values: np.ndarray) -> None:
        for i in range(len(values)):
            values[i] *= 2

    return double


def test_machine_code_is_kept_under_the_digest_of_its_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    values = np.ones(3)
    compile_and_call(make_double(), values)
    assert values.tolist() == [2, 2, 2]
    names = [path.name for path in tmp_path.rglob("*.nbi")]
    assert len(names) == 1
    assert "double_" in names[0]
    assert compile_and_call(make_double(), values).stats.cache_hits  # type: ignore[attr-defined]


def test_a_machine_without_a_folder_for_it_compiles_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only root file system without a home: once a traceback at the import of every program."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    values = np.ones(3)
    compile_and_call(make_double(), values)(values)
    assert values.tolist() == [4, 4, 4]


def test_a_full_disk_or_a_broken_file_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(caching.IndexDataCacheFile, "save", full)
        compile_and_call(make_double(), np.ones(3))
    compile_and_call(make_double(), np.ones(3))
    for path in tmp_path.rglob("*.nbi"):
        path.write_bytes(b"")
    values = np.ones(3)
    compile_and_call(make_double(), values)(values)
    assert values[0] >= 4


def test_a_function_is_loaded_once_for_all_models() -> None:
    """Each model that a server was given, at SIGHUP, took a megabyte that Numba never frees."""
    double = make_double()
    assert compile_and_call(double, np.ones(3)) is compile_and_call(double, np.ones(4))


def test_importing_programs_compiles_nothing() -> None:
    assert not hasattr(propose, "signatures")
