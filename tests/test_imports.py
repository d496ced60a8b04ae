"""The map: app → model ← training. app and training never import each other; model imports neither."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {"app": {"app", "model"}, "training": {"training", "model"}, "model": {"model"}}
WEB = {"fastapi", "starlette", "sse_starlette", "uvicorn", "jinja2"}


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_run_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = imported(path) & ALLOWED.keys()
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


@pytest.mark.parametrize("package", ["model", "training"])
def test_only_the_app_knows_the_web(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert not imported(path) & WEB, path.relative_to(ROOT)
