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

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --upgrade pip >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[quickstart,s3,dev]' >&2
	@touch $@

quickstart: install  ## synthetic ECGs → shards → frozen text → training → zero-shot table, some minutes on 2 cores
	@$(BIN)/python jobs/quickstart.py --config jobs/configs/quickstart.yaml

serve: install  ## the newest bundle under .runs on http://127.0.0.1:8000, API and page; Ctrl-C stops it
	@echo "starting; then open http://127.0.0.1:8000 (API: http://127.0.0.1:8000/docs)"
	@RAY_ADDRESS=local $(BIN)/serve run serve_configs/local.yaml

test: install  ## the default tests, at most 10 minutes on 2 cores
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --durations=10

test-slow: install  ## kills, clusters, whole jobs
	@$(BIN)/python -m pytest -m slow -vv -o console_output_style=times

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
	rm -rf $(VENV) .runs .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
