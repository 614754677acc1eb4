# `make run` sets up and runs every stage on the sample log; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
TORCH := torch==2.13.0

# Which data set (sample, beauty, sports, toys, yelp), and any parameters on top: ARGS='--set train.epochs=5'.
DATASET ?= sample
EPOCHS ?=
ARGS ?=
# A log of your own: LOG=path.csv (or .parquet, .jsonl, a folder with FORMAT=...). Its name is the data set's.
LOG ?=
ifneq ($(LOG),)
override DATASET := $(shell basename $(LOG) | sed -E 's/\.(csv|tsv|txt|parquet|jsonl)(\.[a-z0-9]+)?$$//; s/[^A-Za-z0-9._-]/_/g')
FORMAT ?= $(or $(filter parquet jsonl,$(subst .,,$(suffix $(LOG)))),csv)
OWN := --set fetch.dataset=file --set fetch.file.path=$(LOG) --set fetch.file.format=$(FORMAT) \
	--set fetch.file.name=$(DATASET) --set push.gate.floors.ndcg@20=0
endif
WORKDIR ?= runs/$(DATASET)
PRESET := $(if $(LOG),, $(if $(filter-out sample,$(DATASET)),--preset presets/paper.yaml --preset presets/$(DATASET).yaml))
# A short run is there to be looked at, so its model passes the gate whatever it is worth.
LIMIT := $(if $(EPOCHS),--set train.epochs=$(EPOCHS) --set push.gate.floors.ndcg@20=0)

# A folder with the benchmark sets saves the download.
export ELCREC_MIRROR ?= $(wildcard ../shared/datasets)
# Wheels that pip is told of are for uv as well.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: help setup spark run repro recommend test test-slow test-all test-image check format bench golden lock

help: ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Create .venv from the lock file.

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --requirement requirements.lock $(TORCH)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

spark: setup ## Add PySpark to .venv (480 MB); with Java, the tests of engine.kind spark run then.
	$(BIN)/uv pip install --quiet --python $(BIN)/python --requirement requirements-spark.lock

run: setup ## Run every stage: LOG=path.csv or DATASET=sample|beauty|sports|toys|yelp, EPOCHS=n for a short run.
	$(BIN)/elcrec run --workdir $(WORKDIR) $(PRESET) $(OWN) $(LIMIT) $(ARGS)

repro: setup ## Run what changed since the last time, through DVC.
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

recommend: setup ## Recommend for one user of the last run: USER_ID=u00000.
	$(BIN)/elcrec recommend --store $(WORKDIR)/store --user $(USER_ID)

PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile

test: setup ## Run the tests that a person waits for: some minutes in two processes.
	$(PYTEST) -m "not slow and not container"

test-slow: setup ## Run the others: whole pipelines, servers, kills, Spark, several processes.
	$(PYTEST) -m "slow and not container"

test-all: test test-slow ## Run all tests but those of the image.

test-image: setup ## Build the image and run the pipeline in its containers (needs a container engine).
	$(BIN)/python -m pytest -m container

check: setup ## Lint, format check, types, lock file.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cp requirements.lock $(VENV)/requirements.lock
	$(BIN)/uv pip compile --quiet $(LOCK_OPTIONS) --output-file $(VENV)/requirements.lock pyproject.toml
	diff requirements.lock $(VENV)/requirements.lock
	$(SPARK_LOCK) | diff requirements-spark.lock -

format: setup ## Format the code and mend what ruff can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure speed and memory beside a textbook implementation, into docs/BENCHMARKS.md (half an hour).
	$(BIN)/python -m benchmarks $(ARGS)

# What the extra spark adds to the lock file.
SPARK_LOCK = cp requirements-spark.lock $(VENV)/spark.lock && \
	$(BIN)/uv pip compile --quiet $(LOCK_OPTIONS) --extra spark --constraint requirements.lock \
	--output-file $(VENV)/spark.lock pyproject.toml && grep -vxF -f requirements.lock $(VENV)/spark.lock

LOCK_OPTIONS := --python-version 3.11 --extra dev --no-emit-package torch --no-annotate --no-header

golden: setup ## Write what the tests compare with: compiled pipeline, first losses; review the difference.
	for name in training retraining sweep recommendation; do $(BIN)/elcrec-pipeline compile $$name --output tests/golden/$$name.yaml; done
	$(BIN)/python -m tests.golden.losses

lock: setup ## Resolve the dependencies again.
	$(BIN)/uv pip compile --upgrade $(LOCK_OPTIONS) --output-file requirements.lock pyproject.toml
	$(SPARK_LOCK) > requirements-spark.lock.new && mv requirements-spark.lock.new requirements-spark.lock
