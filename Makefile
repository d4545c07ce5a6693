# The environment is built on the first call and again when its description changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo ui test test-all lint types format bench docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 16

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (PyTorch is large, this takes a while) …"
	$(PIP_INSTALL) --editable '.[export,cloud]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (PyTorch is large, this takes a while) …"
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/.demo $(VENV)/.ui

demo: $(VENV)/.demo  ## the whole path on the shipped models
	$(BIN)/lambda-split demo

$(VENV)/.ui: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing (PyTorch is large, this takes a while) …"
	$(PIP_INSTALL) --editable '.[export,cloud,ui]'
	@touch $@ $(VENV)/.demo

ui: $(VENV)/.ui  ## the shipped models on a web page
	$(BIN)/lambda-split demo --ui

test: $(VENV)/.dev  ## the tests
	$(BIN)/python -m pytest

test-all: $(VENV)/.dev  ## also the exhaustive ones, before a release
	$(BIN)/python -m pytest -m "" --hypothesis-profile=exploring

lint: $(VENV)/.dev  ## ruff, rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev  ## mypy --strict
	$(BIN)/mypy

format: $(VENV)/.dev  ## let ruff rewrite
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## speed and device tables of docs/benchmarks.md
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.device

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs  ## the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "$(PYTHON) -m http.server --directory site shows it, at http://127.0.0.1:8000/"

clean:  ## remove the environment and caches
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
