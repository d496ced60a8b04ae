# make serve   the page on http://127.0.0.1:8000
# make test    lint, types, tests
# Each makes .venv first. On a machine without a GPU, README.md shows how to install PyTorch's small CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
BIN := .venv/bin

.PHONY: serve test lint lint-js pytest clean

serve: .venv/installed
	exec $(BIN)/python -m app

test: .venv/installed-dev
	$(MAKE) --jobs=2 lint pytest

pytest: .venv/installed-dev
	$(BIN)/python -m pytest --numprocesses=2 --dist=worksteal

lint: .venv/installed-dev lint-js
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Types, format and rules of the page's JavaScript, by Node 20.19 or later. The page itself is served as it stands.
lint-js:
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory node_modules/installed && npm run --silent check; \
	elif [ -n "$$CI" ]; then echo "npm is missing: the JavaScript cannot be checked" >&2; exit 1; \
	else echo "No npm here: the JavaScript is not checked."; fi

node_modules/installed: package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	touch $@

.venv/installed: pyproject.toml
	@echo "Installing into .venv; this is done once."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
