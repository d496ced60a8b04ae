# `make help` lists the targets. Each makes .venv first. On a machine without a GPU, README.md shows how to install
# PyTorch's small CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: help serve test lint pytest fmt clean

help: ## Print each target with its sentence.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/installed ## Serve the page on http://127.0.0.1:8000.
	exec $(BIN)/python -m app

test: .venv/installed-dev ## Run lint, types and tests.
	$(MAKE) --jobs=2 lint pytest

pytest: .venv/installed-dev ## Run the tests alone.
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

lint: .venv/installed-dev ## Check the code's form and types; change nothing.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: .venv/installed-dev ## Format the code and sort its imports.
	$(BIN)/ruff format .
	$(BIN)/ruff check --select=I --fix .

.venv/installed: pyproject.toml
	@echo "Installing into .venv; this is done once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[dev]'
	touch $@

clean: ## Remove .venv and all caches.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
