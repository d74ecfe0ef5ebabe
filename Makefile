# Two commands set everything up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
METS_TEST_DATA ?= ../shared/data
export METS_TEST_DATA

.DEFAULT_GOAL := help
.PHONY: help install quickstart serve test test-slow lint docs bench chaos constraints clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## a virtual environment in .venv with everything, versions from constraints.txt

# uv takes a quarter of pip's time. It reads none of pip's settings (an index of the house, a certificate), so they are
# handed to it, and indexes are compared as pip compares them.
UV_SETTINGS := s/^[^=]*\.index-url=/UV_DEFAULT_INDEX=/p; s/^[^=]*\.extra-index-url=/UV_INDEX=/p; \
  s/^[^=]*\.find-links=/UV_FIND_LINKS=/p; s/^[^=]*\.cert=/SSL_CERT_FILE=/p

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --upgrade pip uv >&2
	@set -a; eval "$$($(BIN)/python -m pip config list | sed -nE '$(UV_SETTINGS)')"; \
	 UV_INDEX_STRATEGY=unsafe-best-match $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
	   --constraint constraints.txt --editable '.[quickstart,s3,dev]' >&2
	@touch $@

quickstart: install  ## synthetic ECGs → shards → frozen text → training → zero-shot table, some minutes on 2 cores
	@$(BIN)/mets-ray quickstart

serve: install  ## the newest bundle under .runs on http://127.0.0.1:8000, API and page; Ctrl-C stops it
	@RAY_ADDRESS=local $(BIN)/mets-ray serve

# Two lanes of whole files: the files of one lane share a Ray cluster.
LANES := -n 2 --dist loadfile --no-loadscope-reorder

test: install  ## the default tests, some 5 minutes on 2 cores; COVERAGE=1 counts lines too and takes a sixth more
	@$(BIN)/python -m pytest $(LANES) -m "not slow" --durations=10 $(if $(COVERAGE),--cov=mets_ray --cov-report=)
ifdef COVERAGE
	@echo "$$($(BIN)/coverage report --format=total) % of the lines of mets_ray; those run by Ray's workers do not count"
endif

test-slow: install  ## kills, browsers, clusters, whole jobs, some 20 minutes on 2 cores
	@$(BIN)/python -m pytest $(LANES) -m slow -vv --durations=0 --durations-min=5

lint: install  ## ruff, mypy and the layers of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy mets_ray jobs
	@$(BIN)/lint-imports

docs: install  ## the documentation site, into .runs/docs-site; needs no network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install  ## speed, as ratios against plain PyTorch and plain uvicorn, in a quarter of an hour
	@$(BIN)/python benchmarks/pretrain.py
	@$(BIN)/python benchmarks/serve.py

MINUTES ?= 2
chaos: install  ## training under SIGKILLs for MINUTES=2 minutes, beside the same training undisturbed
	@$(BIN)/python benchmarks/chaos.py --minutes $(MINUTES)

constraints: install  ## write constraints.txt from what is installed now
	@$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//' | grep -v ' @ ' > constraints.txt

clean:  ## remove runs, caches and the virtual environment
	rm -rf $(VENV) .runs .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
