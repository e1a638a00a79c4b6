# `make demo` and `make test` work on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-slow lint check bench clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/'

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable '.[test,dev]'
	touch $@

demo: $(VENV)/.installed ## Install and compare the methods on the embedded digits models at W4A4
	$(BIN)/harness run --suite digits_w4a4

test: $(VENV)/.installed-test ## Install and run the tests
	$(BIN)/python -m pytest

test-slow: $(VENV)/.installed-test ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-test ## Linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test ## All that a change has to pass

bench: $(VENV)/.installed-test ## Speed, as ratios taken in one run
	$(BIN)/python -m tests.benchmarks

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
