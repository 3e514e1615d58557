# `make repro` and `make test` set up .venv by themselves; nothing else needs to be installed.
PYTHON ?= python3
PORT ?= 5000
# Stages are started as `selfscale ...`, which is found in the environment.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# An environment does not survive a move: where it was set up is part of the mark that it is there.
READY := .venv/ready-$(firstword $(shell pwd | cksum))

.PHONY: faults repro setup test ui lint docs experiments bench clean

repro: $(READY)
	selfscale repro $(if $(JOBS),--jobs $(JOBS))

setup: $(READY)

test: $(READY)
	pytest

ui: $(READY)
	selfscale ui --port $(PORT)

faults: $(READY)
	python -m tests.faults $(or $(SECONDS),3600)

lint: $(READY)
	ruff check .
	ruff format --check .
	mypy

# The site in site/; a dead link is an error.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

# What tells experiments apart: settings that changed, and each champion's test score and share of the MACs.
experiments: $(READY)
	dvc exp show --only-changed --no-pager --drop '(src|data/|models/|benchmarks|picks|reports/).*'

bench: repro
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	python benchmarks/performance.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11 to 3.13 is needed; choose one with: make PYTHON=python3.12")'
	@echo "setting up .venv (some minutes) ..."
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv data models reports site .selfscale
