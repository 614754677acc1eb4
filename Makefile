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
FORMAT ?= $(or $(shell basename $(LOG) | sed -nE 's/.*\.(parquet|jsonl)(\.(gz|zst|bz2|xz))?$$/\1/p'),csv)
OWN := --set fetch.dataset=file --set fetch.file.path=$(LOG) --set fetch.file.format=$(FORMAT) \
	--set fetch.file.name=$(DATASET) --set push.gate.floors.ndcg@20=0
endif
WORKDIR ?= runs/$(DATASET)
# best is the most accurate model that we know, paper is the reproduction of ELCRec. Without presets, which is how the
# sample and a log of your own are run unless you name some, params.yaml has the settings.
BENCHMARK := $(if $(LOG),,$(filter-out sample,$(DATASET)))
PRESETS ?= $(if $(BENCHMARK),best)
CHOSEN := $(patsubst %,presets/%.yaml,paper $(BENCHMARK) $(filter-out paper,$(PRESETS)))
CHOSEN += $(if $(filter best,$(PRESETS)),$(wildcard $(BENCHMARK:%=presets/best-%.yaml)))
PRESET := $(if $(PRESETS),$(addprefix --preset ,$(CHOSEN)))
# A short run is there to be looked at, so its model passes the gate whatever it is worth.
LIMIT := $(if $(EPOCHS),--set train.epochs=$(EPOCHS) --set push.gate.floors.ndcg@20=0)

# A folder with the benchmark sets saves the download.
export ELCREC_MIRROR ?= $(wildcard ../shared/datasets)
# Wheels that pip is told of are for uv as well.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: help setup spark run repro recommend test test-slow test-all test-image test-spark-image check docs sbom audit format bench \
	simulate golden lock locks

help: ## List the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## Create .venv from the lock file.

# Nothing is installed whose hash is not in a lock file. PyTorch's build for processors alone is taken where it is to be
# had: on an index or in a folder that UV_FIND_LINKS names.
INSTALL = $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes

$(VENV)/.ready: $(wildcard requirements*.lock) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --requirement requirements-build.lock
	torch=requirements-torch.lock; \
	if $(INSTALL) --dry-run --no-deps --requirement requirements-torch-cpu.lock 2>/dev/null; \
	then torch=requirements-torch-cpu.lock; fi; \
	$(INSTALL) --compile-bytecode --requirement requirements.lock --requirement $$torch
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

spark: setup ## Add PySpark to .venv (480 MB); with Java, the tests of engine.kind spark run then.
	$(INSTALL) --no-deps --requirement requirements-spark.lock

run: setup ## Run every stage: LOG=path.csv or DATASET=sample|beauty|sports|toys|yelp; PRESETS=best|paper, EPOCHS=n for a short run.
	$(BIN)/elcrec run --workdir $(WORKDIR) $(PRESET) $(OWN) $(LIMIT) $(ARGS)

repro: setup ## Run what changed since the last time, through DVC.
	PATH="$(CURDIR)/$(BIN):$$PATH" dvc repro

recommend: setup ## Recommend for one user of the last run: USER_ID=u00000.
	$(BIN)/elcrec recommend --store $(WORKDIR)/store --user $(USER_ID)

PYTEST = $(BIN)/python -m pytest --dist loadfile

test: setup ## Run the quick tests: some four minutes in two processes.
	$(PYTEST) -n 2 -m "not slow and not container"

# Most of these wait for what they have started, so three processes keep two cores busy.
test-slow: setup ## Run the others: whole pipelines, servers, kills, Spark, several processes.
	$(PYTEST) -n 3 -m "slow and not container"

test-all: test test-slow ## Run all tests but those of the image.

test-image: setup ## Build the images and run the pipeline in their containers (needs a container engine).
	$(BIN)/python -m pytest -m container --ignore tests/container/test_spark_image.py

test-spark-image: setup ## The same of the image with Spark, which is large: some ten minutes.
	$(BIN)/python -m pytest -m container tests/container/test_spark_image.py

check: setup ## Lint, format check, types, lock files.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy features
	rm -rf $(VENV)/locks && mkdir $(VENV)/locks && cp requirements*.lock $(VENV)/locks/
	$(MAKE) --no-print-directory locks LOCKS=$(VENV)/locks
	for lock in requirements*.lock; do diff $$lock $(VENV)/locks/$$lock; done

docs: setup ## Build the documentation as a site that needs no network, into build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/release/.ready: requirements-release.lock $(VENV)/.ready
	$(PYTHON) -m venv $(VENV)/release
	$(VENV)/release/bin/pip install --quiet --require-hashes --requirement requirements-release.lock
	touch $@

REPORTS ?= build

sbom: $(VENV)/release/.ready ## Write what is in each image: CycloneDX bills of materials and licences, into build/.
	mkdir -p $(REPORTS)
	for image in train serve; do \
	  cat requirements-torch-cpu.lock requirements-$$image.lock | $(VENV)/release/bin/cyclonedx-py requirements - \
	    --pyproject pyproject.toml --output-reproducible --output-file $(REPORTS)/sbom-$$image.json 2>/dev/null; \
	  $(BIN)/python -m release.licences requirements-torch-cpu.lock requirements-$$image.lock \
	    > $(REPORTS)/licences-$$image.md; \
	done

# Whether a vulnerability is known today says nothing about a change, and a machine may have no network.
audit: $(VENV)/release/.ready ## Look the images' packages up among known vulnerabilities; reports, and never fails.
	for image in train serve; do \
	  timeout 120 $(VENV)/release/bin/pip-audit --no-deps --disable-pip --progress-spinner off --desc off --aliases off \
	    --requirement requirements-$$image.lock >$(VENV)/audit-$$image.txt 2>&1 || echo "audit of $$image: not clean, or not done"; \
	  grep -c 'could not be audited' $(VENV)/audit-$$image.txt | sed "s/^/audit of $$image: packages that the index knows nothing of: /"; \
	  grep -v 'could not be audited' $(VENV)/audit-$$image.txt | tail -40; \
	done || true

format: setup ## Format the code and mend what ruff can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure speed and memory beside a textbook implementation, into docs/BENCHMARKS.md (half an hour).
	$(BIN)/python -m benchmarks $(ARGS)

simulate: setup ## Play thirty days of a shop with drifting taste; writes runs/simulation/simulation.html.
	$(BIN)/python -m benchmarks.simulation $(ARGS)

# Lock files: all that is developed with, what each image installs, what the extra spark adds, what PyTorch's default
# wheel brings along, and what installs and builds.
LOCKS ?= .
COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --no-annotate --no-header --generate-hashes
LOCK = $(COMPILE) --no-emit-package torch
WITHIN = --constraint $(LOCKS)/requirements.lock
TRAIN := validate report index registry model-registry signing features feast-servers dvc s3 gs pipeline trainer
SERVE := registry signing features serve tracing stream

locks:
	$(LOCK) $(UPGRADE) --extra dev --output-file $(LOCKS)/requirements.lock pyproject.toml
	$(LOCK) $(WITHIN) $(TRAIN:%=--extra %) --output-file $(LOCKS)/requirements-train.lock pyproject.toml
	$(LOCK) $(WITHIN) $(SERVE:%=--extra %) --output-file $(LOCKS)/requirements-serve.lock pyproject.toml
	$(LOCK) $(WITHIN) $(SERVE:%=--extra %) --extra index --output-file $(VENV)/index.lock pyproject.toml
	grep -vxF -f $(LOCKS)/requirements-serve.lock $(VENV)/index.lock > $(LOCKS)/requirements-index.lock
	cp $(LOCKS)/requirements-spark.lock $(VENV)/spark.lock
	$(LOCK) $(WITHIN) --extra dev --extra spark --output-file $(VENV)/spark.lock pyproject.toml
	grep -vxF -f $(LOCKS)/requirements.lock $(VENV)/spark.lock > $(LOCKS)/requirements-spark.lock
	echo '$(TORCH)' | UV_FIND_LINKS= $(COMPILE) $(WITHIN) --output-file $(LOCKS)/requirements-torch.lock -
	printf '%s\n' uv==$(UV_VERSION) 'hatchling>=1.27,<2' editables | \
	  $(COMPILE) $(UPGRADE) --output-file $(LOCKS)/requirements-build.lock -
	printf '%s\n' 'cyclonedx-bom>=7.5,<8' 'pip-audit>=2.10,<3' | \
	  $(COMPILE) $(UPGRADE) --output-file $(LOCKS)/requirements-release.lock -

golden: setup ## Write what the tests compare with: compiled pipeline, first losses, dashboard; review the difference.
	$(BIN)/python -m release.monitoring
	for name in training retraining sweep recommendation monitoring; do $(BIN)/elcrec-pipeline compile $$name --output tests/golden/$$name.yaml; done
	$(BIN)/elcrec-pipeline compile training --platform tests/golden/spark-platform.yaml --output tests/golden/spark.yaml
	$(BIN)/python -m tests.golden.losses

lock: setup ## Resolve the dependencies again.
	$(MAKE) --no-print-directory locks UPGRADE=--upgrade
