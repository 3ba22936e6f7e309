# Every target sets up its own environment first: once, and again when what it is made from changes.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SICK := sample_checkpoints/no-ste.pt
DATA := sample_checkpoints/digits.npz

.DEFAULT_GOAL := help
.PHONY: help demo test lint accept bench size samples clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Runs a command that must find something: exit code 1, and neither 0 nor an error.
define expect_findings
	@echo '$$ $(1)'
	@$(BIN)/$(1); code=$$?; test $$code -eq 1 || { echo "expected exit code 1, got $$code" >&2; exit 1; }
	@echo '(exit code 1: findings)'; echo
endef

demo: $(READY)  ## examine a collapsed checkpoint: bare, then with its data
	$(call expect_findings,vqdoctor inspect $(SICK))
	$(call expect_findings,vqdoctor inspect $(SICK) --data $(DATA))

lint: $(READY)  ## style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict vqdoctor
	$(BIN)/lint-imports

test: lint  ## lint, then all tests but the acceptance tables and the benchmarks
	$(BIN)/python -m pytest -q -n 2 -m 'not accept and not bench'

accept: $(READY)  ## the long acceptance tables
	$(BIN)/python -m pytest -s -m accept

bench: $(READY)  ## ratios against named peers
	$(BIN)/python -m pytest -s -m bench

size:  ## how large the code is: lines, files, long functions, crumbs, Any
	@$(PYTHON) tests/size.py

samples: $(READY)  ## train the sample checkpoints again
	$(BIN)/python -m vqdoctor.reference.make_samples sample_checkpoints --seed 0

clean:  ## remove the environment, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
