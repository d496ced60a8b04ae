"""The map: app → model ← training, and inside each package towards the ground, with no circle."""

import ast
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {"app": {"app", "model"}, "training": {"training", "model"}, "model": {"model"}}
WEB = {"fastapi", "starlette", "sse_starlette", "uvicorn", "jinja2"}
MAY_IMPORT = {
    # What a room may know of its own package besides itself; a room that is not named here may know all of it.
    "app.settings": {"app.environment"},
    "app.problems": set[str](),
    "app.serving": {"app.settings", "app.problems"},
    "app.observability": {"app.settings", "app.problems", "app.serving"},
    "app.security": {"app.settings", "app.problems", "app.serving"},
    "app.web": {"app.settings", "app.problems", "app.serving", "app.api"},
    "model.sampling": {"model.arithmetic", "model.atomic_files", "model.errors", "model.jit", "model.vocabulary"},
    "model.backends": {
        "model.arithmetic",
        "model.config",
        "model.device",
        "model.errors",
        "model.jit",
        "model.network",
        "model.quantisation",
        "model.sampling",
    },
    "model.analysis": {
        "model.atomic_files",
        "model.errors",
        "model.jit",
        "model.cancellation",
        "model.sampling",
        "model.vocabulary",
    },
}
CALLERS_OF_ANALYSIS = {  # the index is one of a checkpoint's files, and browsers have one of their own
    "model.browser_index",
    "model.checkpoint",
    "model.sample",
}
FORBIDDEN = {"app.settings": {"fastapi", "starlette"}, "app.serving": {"fastapi", "starlette", "sse_starlette"}}


def modules_of(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = dict(chain.from_iterable(modules_of(package).items() for package in PACKAGES))


def imports_of(path: Path) -> Iterator[str]:
    """What a file imports, anywhere in it, also where only a type checker looks; modules by their full name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in MODULES else node.module


GRAPH = {name: set(imports_of(path)) for name, path in MODULES.items()}


def is_in(module: str, room: str) -> bool:
    """Whether a module is a room, or stands in it."""
    return module == room or module.startswith(f"{room}.")


def top(module: str) -> str:
    """The package that a module is of."""
    return module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    ours = {top(imported) for imported in GRAPH[module]} & PACKAGES.keys()
    assert ours <= PACKAGES[top(module)]


@pytest.mark.parametrize("module", [name for name in MODULES if top(name) != "app"])
def test_only_the_app_knows_the_web(module: str) -> None:
    assert not {top(imported) for imported in GRAPH[module]} & WEB


@pytest.mark.parametrize("room", FORBIDDEN)
def test_some_rooms_of_the_app_know_no_http(room: str) -> None:
    for module in filter(lambda name: is_in(name, room), MODULES):
        assert not {top(imported) for imported in GRAPH[module]} & FORBIDDEN[room], module


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_no_import_of_a_room_runs_up(room: str) -> None:
    allowed = MAY_IMPORT[room] | {room}
    inside = [name for name in MODULES if is_in(name, room)]
    assert inside
    for module in inside:
        for imported in GRAPH[module]:
            if top(imported) == top(room):
                assert any(is_in(imported, one) for one in allowed), f"{module} imports {imported}"


def test_backends_do_not_know_each_others_insides() -> None:
    for module in MODULES:
        for kind, other in (("cpu", "cuda"), ("cuda", "cpu")):
            if is_in(module, f"model.backends.{kind}"):
                assert not any(is_in(imported, f"model.backends.{other}") for imported in GRAPH[module]), module


def test_analysis_is_known_by_its_callers_alone() -> None:
    for module in MODULES:
        if top(module) == "model" and not is_in(module, "model.analysis") and module not in CALLERS_OF_ANALYSIS:
            assert not any(is_in(imported, "model.analysis") for imported in GRAPH[module]), module


def test_there_is_no_circle() -> None:
    """Modules are taken away as soon as all that they import is gone; what is left over imports itself."""
    left = {name: imported & MODULES.keys() for name, imported in GRAPH.items()}
    while ready := [name for name, imported in left.items() if not imported & left.keys()]:
        for name in ready:
            del left[name]
    assert not left
