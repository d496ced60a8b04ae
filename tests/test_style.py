"""House rules that can be counted: one statement a line, short comprehensions, one meaning for a name."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("app", "model", "training")
ALL_CODE = (*PACKAGES, "tests", "benchmarks", "deploy")
MAX_TUPLE_ASSIGNMENTS = 5  # per 1,000 lines that are not blank
SHARED_NAMES = {
    "logger",  # each module's own
    "router",  # each group of routes' own
    "MAX_STEPS",  # of one multi-step decode: each backend's own
    "NOTE",  # while a backend compiles: each backend's own
    "NANOGPT_FLAGS",  # flags of nanoGPT's that a command does not have: each command's own
    "RMS_EPSILON",  # PyTorch's, and the same number for Triton
}


def trees_of(package: str) -> dict[Path, ast.Module]:
    """The syntax tree of each file in a package."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def is_pressed(node: ast.AST) -> bool:
    """Whether several values are assigned to several names at once, and it is no swap."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    target = node.targets[0]
    if not isinstance(target, ast.Tuple):
        return False
    return {ast.unparse(name) for name in target.elts} != {ast.unparse(value) for value in node.value.elts}


@pytest.mark.parametrize("package", ALL_CODE)
def test_one_statement_stands_on_a_line(package: str) -> None:
    pressed = []
    lines = 0
    for path, tree in trees_of(package).items():
        lines += sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())
        for node in ast.walk(tree):
            if is_pressed(node):
                pressed.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}")
    assert 1000 * len(pressed) <= MAX_TUPLE_ASSIGNMENTS * lines, pressed


@pytest.mark.parametrize("package", ALL_CODE)
def test_no_comprehension_has_two_loops(package: str) -> None:
    comprehensions = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    for path, tree in trees_of(package).items():
        for node in ast.walk(tree):
            if isinstance(node, comprehensions):
                assert len(node.generators) == 1, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_a_public_class_or_constant_has_one_home() -> None:
    """REASONS were three tables, MOST_BYTES four bounds, Observer two classes: who looked for one found another."""
    homes = defaultdict(set)
    for package in PACKAGES:
        for path, tree in trees_of(package).items():
            for node in tree.body:
                names = []
                if isinstance(node, ast.ClassDef):
                    names = [node.name]
                elif isinstance(node, ast.Assign):
                    for target in node.targets:
                        names += [name.id for name in ast.walk(target) if isinstance(name, ast.Name)]
                elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    names = [node.target.id]
                for name in names:
                    if not name.startswith("_"):
                        homes[name].add(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1 and name not in SHARED_NAMES} == {}
