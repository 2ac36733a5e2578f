# The daily commands; `make` alone lists them. Nothing has to be installed first but Python 3.11 or newer:
# what a command needs comes into .venv, in the versions of requirements/, when it is missing or out of date.

VENV ?= .venv
CONTAINER_ENGINE ?= docker
export VENV PYTHON CONTAINER_ENGINE

# Names without a directory part, so that a checkout under a path with spaces works.
DEMO_READY := $(VENV)/.demo-ready
READY := $(VENV)/.ready

.DEFAULT_GOAL := help

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(DEMO_READY) ## See two pods share one .claude, on this machine alone; ARGS="..." goes to the command
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/claude-sidecar demo $(ARGS)

.PHONY: test
test: $(READY) ## Run the tests; ARGS="-k name" goes to pytest
	@scripts/test $(ARGS)

.PHONY: lint
lint: $(READY) ## Run every check that is not a test
	@scripts/lint

.PHONY: check
check: lint test ## Run lint, then test: what CI runs

.PHONY: format
format: $(READY) ## Rewrite the code as the linters want it
	@$(VENV)/bin/ruff check --fix --show-fixes .
	@$(VENV)/bin/ruff format .

.PHONY: bench
bench: $(READY) ## Measure against other tools; ARGS="..." goes to the benchmark
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/python -m benchmarks $(ARGS)

.PHONY: test-pythons
test-pythons: ## Run the tests on every Python of this machine from 3.11 on
	@scripts/test-pythons $(ARGS)

.PHONY: image
image: ## Build the container images; CONTAINER_ENGINE=podman where docker is not
	@scripts/build-image $(ARGS)

.PHONY: lock
lock: ## Resolve pyproject.toml into requirements/*.txt; ARGS=--upgrade takes newer versions
	@scripts/lock $(ARGS)

.PHONY: setup
setup: $(READY) ## Make .venv with everything; the other commands do it when they need it
	@:

.PHONY: clean
clean: ## Remove everything that these commands made
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements/develop.txt pyproject.toml
	@scripts/setup develop $(VENV)
	@touch $(READY) $(DEMO_READY)

# An environment for the tests serves the demo too.
$(DEMO_READY): requirements/demo.txt pyproject.toml
	@scripts/setup demo $(VENV)
	@touch $@
