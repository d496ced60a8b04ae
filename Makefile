# `make help` lists the targets. Each makes .venv first. On a machine without a GPU, README.md shows how to install
# PyTorch's small CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_FLAGS ?=
BIN := .venv/bin
NEW_NODE := const [major, minor] = process.versions.node.split("."); process.exit(major > 20 || (major == 20 && minor >= 19) ? 0 : 1)

.PHONY: help serve test lint lint-python lint-js pytest kernel bench fmt clean

help: ## Print each target with its sentence.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: .venv/installed ## Serve the page on http://127.0.0.1:8000.
	exec $(BIN)/python -m app

test: ## Run lint, types and tests.
	$(MAKE) --jobs=2 pytest lint  # in this order: the JavaScript is checked while pip installs

pytest: .venv/installed-dev kernel ## Run the tests alone.
	$(BIN)/python -m pytest --numprocesses=3 --dist=worksteal

# Compiled once, before there are processes that would each do so, and while pip installs what only tests need.
kernel: .venv/installed ## Compile the generator for this CPU; the first start does so, too.
	$(BIN)/python -m model.sample --num_samples=1 --max_new_tokens=50 --device=cpu > /dev/null

bench: .venv/installed ## Print how fast this machine generates, and what share of its limits that is.
	$(BIN)/python -m benchmarks.decode --rounds=1 --peers=False

lint: lint-python lint-js ## Check the code's form and types; change nothing.

lint-python: .venv/installed-dev ## Check the form and types of the Python code alone.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Types, format and rules of the page's JavaScript. The page is served without a build step.
lint-js: ## Check the page's JavaScript where Node 20.19 or later is there.
	@if command -v npm > /dev/null && node -e '$(NEW_NODE)'; then \
	  $(MAKE) --no-print-directory node_modules/installed && npm run --silent check; \
	elif [ -n "$$CI" ]; then echo "no Node 20.19 or later: the JavaScript cannot be checked" >&2; exit 1; \
	else echo "No Node 20.19 or later: the JavaScript is not checked."; fi

node_modules/installed: package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	touch $@

fmt: .venv/installed-dev ## Format the code and sort its imports.
	$(BIN)/ruff format .
	$(BIN)/ruff check --select=I --fix .

.venv/bin/python:
	@echo "Installing into .venv; this is done once."
	$(PYTHON) -m venv .venv

# pip would compile all modules, for as long as it takes to install them. Python compiles those that it imports, and
# keeps them, where the environment forbids it, too.
PIP_INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --no-compile $(PIP_FLAGS)
serve bench kernel pytest lint-python: export PYTHONDONTWRITEBYTECODE :=
.venv/installed: pyproject.toml | .venv/bin/python
	$(PIP_INSTALL) --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@

clean: ## Remove .venv, node_modules and all caches.
	rm -rf .venv node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
