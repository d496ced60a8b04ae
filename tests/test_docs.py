"""The docs name what is there: links, files, commands with their flags, variables, and names in the code."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from pydantic_settings import BaseSettings

from app.settings import ServerSettings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CHANGELOG = ROOT / "CHANGELOG.md"
GUIDES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, CHANGELOG]
MAX_README_LINES = 150
MAX_PICTURE_BYTES = 300_000

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FILE_NAME = re.compile(r"[\w.-]+\.(py|md|js|mjs|json|yml|yaml|toml|sh|conf|lock|html|css|safetensors)")
PATH = re.compile(r"\.?[\w-][\w.-]*(/[\w.-]+)+/?")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
MODULE = re.compile(r"-m ((?:app|model|training|benchmarks|deploy|docs)\b[\w.]*)")
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
VARIABLE = re.compile(r"SOLILOQUY_[A-Z_]+[A-Z]")
SOURCES = ("app", "model", "training", "static", "benchmarks", "deploy", "tests")
WRONG_VARIABLES = {"SOLILOQUY_API_KEY"}  # which the docs warn of
EXAMPLES = ("checkpoints/",)  # below it stand folders that a reader makes


def content_of(page: Path) -> str:
    """The text of a page."""
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return FENCE.sub("", content_of(page))


def shell_lines(page: Path) -> Iterator[str]:
    """Each line of the page's shell blocks without its comment, those that end in a backslash joined."""
    for language, block in FENCE.findall(content_of(page)):
        if language == "sh":
            for line in block.replace("\\\n", " ").splitlines():
                yield re.sub(r"(^|\s)# .*|\s#$", "", line)


def code_of(page: Path) -> list[str]:
    """All that a reader may type or look up: lines of shell blocks, and code in a line of text."""
    return [*shell_lines(page), *CODE_SPAN.findall(prose_of(page))]


def anchors_of(page: Path) -> set[str]:
    """The names that GitHub gives the headings of a page, so that a link can lead to them."""
    found = set()
    for heading in HEADING.findall(FENCE.sub("", content_of(page))):
        kept = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(kept.replace(" ", "-"))
    return found


def commands() -> list[tuple[str, str, str]]:
    """Page, module and arguments of each `python -m` in the guides."""
    found = []
    for page in GUIDES:
        for code in code_of(page):
            for match in MODULE.finditer(code):
                arguments = code[match.end() :].rstrip(" &")
                found.append((page.name, match[1], arguments))
    return found


def settings_of(module: str) -> type[BaseSettings]:
    """The class that a command's flags are the fields of."""
    if module == "app":
        return ServerSettings
    for value in vars(importlib.import_module(module)).values():
        if not (isinstance(value, type) and issubclass(value, BaseSettings)):
            continue
        if value.model_config.get("cli_prog_name") == f"python -m {module}":
            return value
    raise LookupError(f"{module} has no settings")


@cache
def all_settings() -> dict[str, type[BaseSettings]]:
    """The settings of every command that the guides name and that can be imported here."""
    found = {}
    for module in {module for _, module, _ in commands()}:
        try:
            found[module] = settings_of(module)
        except (ImportError, LookupError):  # an extra is not installed, or the command has no flags
            continue
    return found


@cache
def words_of_the_code() -> frozenset[str]:
    """Every word in the sources."""
    words: set[str] = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".js"} and path != Path(__file__):
                words.update(re.findall(r"\w+", content_of(path)))
    return frozenset(words)


@cache
def names_of_files() -> frozenset[str]:
    """The name of every file in the folders that belong to the repository."""
    names = {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in (*SOURCES, "docs", "templates", "checkpoints"):
        names.update(path.name for path in (ROOT / folder).rglob("*"))
    return frozenset(names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose_of(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    top_names = {path.name for path in ROOT.iterdir() if path.name not in {"data", "runs"}}
    for span in CODE_SPAN.findall(prose_of(page)):
        if span.startswith(EXAMPLES):
            continue
        if PATH.fullmatch(span) and span.split("/")[0] in top_names:
            assert (ROOT / span).exists(), span
        elif FILE_NAME.fullmatch(span):
            assert span in names_of_files(), span


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_tests_that_are_to_be_run_are_there(page: Path) -> None:
    for code in code_of(page):
        for name in re.findall(r"\b(?:tests|benchmarks)/[\w./]+", code):
            assert (ROOT / name).exists(), name


def test_the_map_of_the_folders_is_whole() -> None:
    """Every package and its rooms stand in the architecture's map, and nothing else does."""
    named = set()
    folder = ""
    for line in FENCE.findall(content_of(ARCHITECTURE))[0][1].splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name
            named.add(folder)
        else:
            named.add(folder + name)
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing
    for package in ("app", "model"):
        for path in (ROOT / package).iterdir():
            if (path / "__init__.py").exists():  # not what an older version left of compiled code
                assert f"{package}/{path.name}/" in named
    for path in ROOT.iterdir():
        if (path / "__init__.py").exists():
            assert f"{path.name}/" in named


def test_the_architecture_names_what_is_in_the_code() -> None:
    for span in CODE_SPAN.findall(prose_of(ARCHITECTURE)):
        if IDENTIFIER.fullmatch(span) and not FILE_NAME.fullmatch(span):
            missing = set(span.split(".")) - words_of_the_code() - names_of_files()
            assert not missing, f"{span}: {missing}"


def test_the_readme_is_short_and_shows_a_request_early() -> None:
    lines = content_of(README).splitlines()
    assert len(lines) <= MAX_README_LINES
    [first, *_] = [number for number, line in enumerate(lines, 1) if line.startswith("curl ")]
    assert first <= 60
    assert any("from openai import OpenAI" in line for line in lines)


def test_pictures_are_small_and_shown() -> None:
    shown = "".join(content_of(page) for page in GUIDES)
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= MAX_PICTURE_BYTES, picture.name
        assert f"images/{picture.name})" in shown, picture.name


@pytest.mark.parametrize(("page", "module", "arguments"), commands())
def test_commands_and_their_flags_exist(page: str, module: str, arguments: str) -> None:
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()
    flags = re.findall(r"(?:^|\s)--([\w-]+)", arguments)
    if not flags or flags == ["help"]:
        return
    if module.startswith("deploy."):
        pytest.importorskip("ray")
    known = set(settings_of(module).model_fields) | {"help"}
    assert {flag.replace("-", "_") for flag in flags} <= known


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_flags_that_are_named_alone_exist(page: Path) -> None:
    known = {"help"}
    for settings in all_settings().values():
        known |= set(settings.model_fields)
    for span in CODE_SPAN.findall(prose_of(page)):
        if span.startswith("--"):
            for word in shlex.split(span):
                name, equals, _ = word.removeprefix("--").partition("=")
                assert not word.startswith("--") or name in known, f"{span}: {name}{equals}"


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", content_of(ROOT / "Makefile"), re.MULTILINE))
    for code in code_of(page):
        for target in MAKE.findall(code):
            assert target in targets, code


def test_make_help_says_what_each_target_does() -> None:
    makefile = content_of(ROOT / "Makefile")
    targets = re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE)
    assert targets[0] == "help"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--silent"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    sentences = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(sentences) == targets
    assert all(sentence.endswith(".") for sentence in sentences.values())


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_variables_are_settings(page: Path) -> None:
    known = {f"SOLILOQUY_{name.upper()}" for name in ServerSettings.model_fields}
    for name in set(VARIABLE.findall(content_of(page))) - known - WRONG_VARIABLES:
        read_by = [ROOT / "docker-compose.yml", *(ROOT / "tests").rglob("*.py")]
        read_by.remove(Path(__file__))
        assert any(f'"{name}"' in content_of(path) or f"${{{name}:" in content_of(path) for path in read_by), name


def test_the_readmes_sample_is_what_the_model_writes() -> None:
    """The bundled model writes the same text on every CPU, so the README can be held to it."""
    [sample] = [block for _, block in FENCE.findall(content_of(README)) if block.startswith("JULIET:")]
    flags = ["--start=JULIET:", "--seed=7", "--num_samples=1", f"--max_new_tokens={len(sample)}", "--device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "model.sample", *flags], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert sample in done.stdout


def test_hosted_checks_are_the_local_ones() -> None:
    workflow = yaml.safe_load(content_of(ROOT / ".github" / "workflows" / "ci.yml"))
    assert workflow["jobs"]["test"]["steps"][-1] == {"run": ".ci/run"}
    assert "make test" in content_of(ROOT / ".ci" / "run")
    [repository] = yaml.safe_load(content_of(ROOT / ".pre-commit-config.yaml"))["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == ["make lint"]


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issue_templates_ask_for_something(name: str) -> None:
    template = yaml.safe_load(content_of(ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"))
    assert template["name"]
    assert template["description"]
    assert any(part.get("validations", {}).get("required") for part in template["body"])
