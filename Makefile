# `make repro` and `make test` set up .venv by themselves; nothing else needs to be installed.
PYTHON ?= python3
BIN := .venv/bin
# Stages are started as `selfscale ...`, which is found in the environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: repro test ui lint clean

repro: .venv/installed
	dvc repro

test: .venv/installed
	pytest

ui: .venv/installed
	selfscale ui

lint: .venv/installed
	ruff check .
	ruff format --check .
	mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv data models reports .selfscale
