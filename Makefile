# Every target sets up its own environment first: once, and again when pyproject.toml or the pins change.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SICK := sample_checkpoints/no-ste.pt
DATA := sample_checkpoints/digits.npz

.DEFAULT_GOAL := help
.PHONY: help demo test lint accept fuzz bench size docs samples new-check clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

# Runs a command that must report findings: exit code 1. Any other exit code is an error.
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

# Two workers of one thread each: more threads than cores wait for each other, which took two minutes more.
# ONLY is a folder or a file below tests/, or several: make test ONLY=checks, make test ONLY="docs ci".
test: lint  ## lint, then all tests except the acceptance tables and the benchmarks; ONLY=checks: one folder
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m 'not accept and not bench' $(addprefix tests/,$(ONLY))

accept: $(READY)  ## the long acceptance tables
	$(BIN)/python -m pytest -s -m accept

fuzz: $(READY)  ## 20,000 hostile files, batches, reports and settings; SEED=n, INPUTS=n
	$(BIN)/python tests/fuzz.py --seed $(or $(SEED),0) --inputs $(or $(INPUTS),20000)

bench: $(READY)  ## ratios against named peers
	$(BIN)/python -m pytest -s -m bench

docs: $(READY)  ## write the generated parts of README.md and docs/ again
	$(BIN)/python tests/pages.py

size:  ## how large the code is: lines, files, long functions, crumbs, Any
	@$(PYTHON) tests/size.py

samples: $(READY)  ## train the sample checkpoints again
	$(BIN)/python -m vqdoctor.reference.make_samples sample_checkpoints --seed 0

new-check: $(READY)  ## write a check and its test from a template: CODE=VQ5xx NAME=some-name
	@PYTHONPATH=. $(BIN)/python tests/new_check.py "$(CODE)" "$(NAME)"

clean:  ## remove the environment, caches and builds
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
