# Edgewright: `make demo` and `make test` are all that a newcomer needs; `make help` lists the rest.
.DEFAULT_GOAL := help
SHELL := bash
PYTHON ?= python3
UV := $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
BIN := .venv/bin
MEMBERS := contract pipelines operator edge-agent cli local
TYPED := $(MEMBERS:%=%/src)
ARGS ?=
# ONNX Runtime and MLflow report their use to their makers unless told not to; a test run and a bench are nobody's business.
export ORT_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help setup demo demo-stop test unit soak bench lint generate verify lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.tools/uv/bin/uv:
	@echo "uv is missing: installing it into .tools/uv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .tools/uv && .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv

.venv/.installed: requirements.lock $(MEMBERS:%=%/pyproject.toml) $(if $(findstring .tools,$(UV)),$(UV))
	@echo "installing the locked packages into .venv (once; about 6 GB, torch is most of it)"
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@VIRTUAL_ENV=$(CURDIR)/.venv $(UV) pip sync --quiet requirements.lock
	@touch $@

setup: .venv/.installed ## install what is missing into .venv

demo: setup ## from nothing to a rolled-out model; ARGS="--exit --json" for scripts
	@$(BIN)/edgewright demo $(ARGS)

demo-stop: setup ## end everything that a demo started
	@$(BIN)/edgewright demo --stop

test: setup ## all tests, those on the real API server included
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(TYPED)
	@MYPYPATH=deploy $(BIN)/mypy deploy/generate.py deploy/generators
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python deploy/generate.py --check
	@$(BIN)/python -m pytest -q $(SPREAD) tests

# Three workers keep two cores busy, as many tests wait for servers; tests/conftest.py says in which order files begin.
SPREAD := -n 3 --dist loadscope --no-loadscope-reorder

# What trains, exports, starts servers, makes an environment or tries thousands of cases; `make test` runs it.
SLOW := tests/cluster tests/edge_agent/serving tests/operator/test_histories.py tests/pipelines/study \
  $(addprefix tests/edge_agent/test_,faults.py processes.py running.py slim_install.py) \
  $(addprefix tests/pipelines/test_,calibrate.py compress.py disaggregate.py evaluate.py export.py flow.py latency.py) \
  $(addprefix tests/pipelines/test_,layout.py nibbles.py prune.py qat.py quantize.py rounds.py sweep.py tracebase.py) \
  $(addprefix tests/pipelines/test_,train.py) $(addprefix tests/cli/test_,options.py study.py sweep.py) \
  tests/cli/test_train_and_evaluate.py

unit: setup ## the tests that neither train nor start servers
	@$(BIN)/python -m pytest -q -n 2 tests $(SLOW:%=--ignore %)

soak: setup ## faults with real processes at every point: about an hour
	@$(BIN)/python -m pytest -q -m soak tests

bench: setup ## each performance claim beside its peers, in short form; results/ holds the long ones
	@set -o pipefail; export PATH="$(abspath $(dir $(UV))):$$PATH"; missed=; \
	for bench in verify footprint swap stall engines serving containment rollout_scale revert compression; do \
	  echo "== bench/$$bench.py --quick"; \
	  $(BIN)/python bench/$$bench.py --quick --json | tail -1 || missed="$$missed $$bench"; done; \
	test -z "$$missed" || { echo "failed, or missed a goal of its own:$$missed"; exit 1; }

lint: setup ## style, types and layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy $(TYPED)
	@$(BIN)/lint-imports --no-cache

generate: setup ## CRDs, dashboards, the chart's copies and the gRPC messages
	@$(BIN)/python deploy/generate.py

verify: setup ## fails when something generated is out of date
	@$(BIN)/python deploy/generate.py --check

lock: setup ## resolve anew into requirements.lock (versions and hashes, no hosts)
	@$(UV) lock --quiet && $(UV) export --quiet --all-packages --all-groups --format requirements.txt -o requirements.lock

clean: ## remove the environment and what runs left behind (not the build cache)
	@rm -rf .venv .tools .edgewright
