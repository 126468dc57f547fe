# `make` says what there is. Needs git, make, and Python 3.11 or 3.12 with its venv module; the rest comes by itself.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kfp-triggers
PYTHON ?= python3
# Debian's Python takes no packages: without a uv on PATH, one lives in a venv of its own.
OWN_UV := $(CACHE)/uv-0.13
UV := $(or $(shell command -v uv),$(OWN_UV)/bin/uv)
# Go 1.24 builds MinIO and Alertmanager; a machine without it gets Go as a wheel.
GO_GROUP = $(shell go version 2>/dev/null | grep -Eq 'go(1\.(2[4-9]|[3-9][0-9])|[2-9]\.)' || echo --group go)
BIN := .venv/bin
SYNCED := .venv/.synced

.DEFAULT_GOAL := help
.PHONY: help setup parts demo demo-loop test faults fuzz mutants test-kfp bench-kfp bench-inference soak image lint fmt clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SYNCED)  ## the environment, from the lock

$(OWN_UV)/bin/uv:
	@$(PYTHON) -m venv $(OWN_UV) || { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	@$(OWN_UV)/bin/pip install --quiet --disable-pip-version-check 'uv==0.13.*'

$(SYNCED): pyproject.toml uv.lock | $(filter $(OWN_UV)/bin/uv,$(UV))
	$(UV) sync --frozen --all-extras $(GO_GROUP)
	@touch $@

parts: setup  ## MinIO, Alertmanager, Redis: find them or build them, once
	@$(BIN)/python -m service.parts

demo: parts  ## the whole story on real parts; STAY=1 keeps it running; BACKEND=kfp ENDPOINT=http://… on a cluster
	@$(BIN)/python deploy/demo/demo.py $(if $(STAY),--stay) $(if $(BACKEND),--backend $(BACKEND)) \
	$(if $(ENDPOINT),--endpoint $(ENDPOINT)) $(if $(NAMESPACE),--namespace $(NAMESPACE)) \
	$(if $(TOKEN_FILE),--token-file $(TOKEN_FILE)) $(if $(IMAGE),--image $(IMAGE))

demo-loop: parts  ## weeks in minutes: drift, alert, retraining, promotion, and a picture; SEED=1,2,3 DRIFT=none OUT=… STAY=1
	@$(BIN)/python -m service.parts prometheus
	@$(BIN)/python deploy/loop/loop.py $(if $(SEED),--seeds $(SEED)) \
	$(if $(DRIFT),--drift $(DRIFT)) $(if $(WEEKS),--weeks $(WEEKS)) $(if $(OUT),--out $(OUT)) $(if $(STAY),--stay)

test: parts lint  ## everything that CI runs, in JOBS=3 processes
	env -u KFP_ENDPOINT $(BIN)/pytest -n $(or $(JOBS),3)

faults: parts  ## every row of the fault matrix, with a report: STORE=sqlite|postgres SEED=… REPORT=FILE
	$(BIN)/pytest tests/faults -m faults --store $(or $(STORE),sqlite) $(if $(SEED),--seed $(SEED)) \
	$(if $(REPORT),--report $(REPORT))

fuzz: parts  ## anything at the API and at each source's parser, for as long as you like: MINUTES=10 SEED=…
	$(BIN)/pytest tests/fuzz -s -q --fuzz-minutes $(or $(MINUTES),10) $(if $(SEED),--fuzz-seed $(SEED))

mutants: parts  ## seeded bugs, each of which the suite must notice
	$(BIN)/python tests/mutants/mutants.py

soak: parts  ## traffic of all sources while parts are killed at random: MINUTES=30 SEED=1 STORE=sqlite|postgres JSON=FILE
	@PYTHONPATH=.:tests:deploy/demo $(BIN)/python tests/soak/soak.py $(if $(MINUTES),--minutes $(MINUTES)) \
	$(if $(SEED),--seed $(SEED)) $(if $(STORE),--store $(STORE)) $(if $(JSON),--json $(JSON))

test-kfp: setup  ## what we need of a KFP API server, tried on one: ENDPOINT=http://… [NAMESPACE= TOKEN_FILE= CA_FILE= IMAGE= WAIT=]
	@test -n "$(ENDPOINT)" || { echo "say which server: make test-kfp ENDPOINT=http://…"; exit 2; }
	KFP_ENDPOINT="$(ENDPOINT)" KFP_NAMESPACE="$(NAMESPACE)" KFP_TOKEN_FILE="$(TOKEN_FILE)" \
	KFP_COOKIES_FILE="$(COOKIES_FILE)" KFP_CA_FILE="$(CA_FILE)" KFP_WAIT="$(WAIT)" KFP_IMAGE="$(IMAGE)" \
	$(BIN)/pytest tests/contract -rs

image:  ## the image of pipeline steps: TAG=REF [BASE_IMAGE=REF] [TOOL=docker|podman|buildah]
	@deploy/image/build --tag "$(TAG)" $(if $(TOOL),--tool $(TOOL)) $(if $(BASE_IMAGE),BASE_IMAGE=$(BASE_IMAGE))

bench-kfp: setup  ## what watching and submitting to a KFP API server cost
	$(BIN)/python bench/kubeflow.py

bench-inference: parts  ## scoring against a bare script: one million ids, then ten
	$(BIN)/python bench/inference.py

lint: setup  ## style, types, who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: setup  ## put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## the environment and what tools left; the built parts stay in the cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
