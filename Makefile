# Everything runs from here on a machine that has only Python 3.11 or newer, with its venv module.
#   make demo     the main job, narrated          make bench   speed, beside a peer in the same run
#   make test     lint, types, layers, tests      make clean   remove what the other targets made
#   make picture  record the picture of the README

PYTHON ?= python3
WORKERS ?= 4

VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime.stamp
DEV := $(VENV)/.dev.stamp
NODE := .cache/node/.stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq --no-input
CODE := khotan_cli tests bench docs/picture.py
BENCHES ?= $(sort $(wildcard bench/[!_]*.py))

.DEFAULT_GOAL := help
.PHONY: help demo picture test check lint types services bench benches constraints clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | head -4

demo: $(RUNTIME)
	@$(BIN)/khotan demo $(DEMO_OPTIONS)

picture: $(RUNTIME)
	@$(BIN)/python docs/picture.py

test: check
	@$(BIN)/python -m compileall -q khotan_cli tests  # also where PYTHONDONTWRITEBYTECODE is set: tests start many processes
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup

check: lint types

lint: $(DEV)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-logo

types: $(DEV)
	$(BIN)/mypy
	$(BIN)/pyright

test: services

services: $(NODE)

bench: $(DEV)
	@$(PIP) install --constraint constraints.txt --editable '.[bench]'
	@$(MAKE) --no-print-directory benches

# Every script prints one line of JSON. One that fails or misses its bound does not keep the others from running.
benches:
	@missed=; for script in $(BENCHES); do $(BIN)/python $$script || missed="$$missed $$script"; done; \
		test -z "$$missed" || { echo "Failed, or missed a bound:$$missed" >&2; exit 1; }

# The environment: first what khotan needs to run, which is all that `make demo` waits for; then what the tests need.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 …" >&2; exit 1; }
	@echo "Making $(VENV) (once) …" >&2
	@$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing khotan into $(VENV) …" >&2
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(DEV): $(RUNTIME)
	@echo "Installing what the tests need into $(VENV) …" >&2
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Services from npm that tests talk to. No lock file: package.json pins them, and their versions are all that is recorded.
$(NODE): tests/support/node/package.json $(DEV)
	@mkdir -p $(@D)
	@cp tests/support/node/package.json $(@D)/package.json
	@echo "Installing the services that tests talk to into $(@D) …" >&2
	@cd $(@D) && PATH="$(abspath $(BIN)):$$PATH" npm install --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error >&2
	@touch $@

# Pin what a fresh environment resolves to today. Only names and versions: no host, no path.
constraints:
	rm -rf .cache/constraints && $(PYTHON) -m venv .cache/constraints
	.cache/constraints/bin/python -m pip --disable-pip-version-check --quiet install --editable '.[dev]'
	{ echo "# Versions that the tests run with. Made by: make constraints"; \
		.cache/constraints/bin/python -m pip freeze --exclude-editable | sort -f; } > constraints.txt
	rm -rf .cache/constraints

clean:
	rm -rf $(VENV) .cache build dist khotan-demo khotan-demo-[0-9]* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
