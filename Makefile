# Two commands set everything up on a fresh machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
METS_TEST_DATA ?= ../shared/data
export METS_TEST_DATA
unexport PYTHONDONTWRITEBYTECODE  # tests start hundreds of processes

.DEFAULT_GOAL := help
.PHONY: help install quickstart serve demo-bundle demo-export gallery test test-slow lint audit docs bench bench-check gpu-check chaos constraints locks clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(VENV)/.installed  ## a virtual environment in .venv with everything, versions from constraints.txt

# uv takes a quarter of pip's time. It reads none of pip's settings (an index of the house, a certificate), so they are
# handed to it, and indexes are compared as pip compares them; of one version found in two, uv takes the first index's
# files, so the main one stands first: another one may have only the wheel without a package's own library.
INDEX_SETTINGS := s/^[^=]*\.index-url=/UV_DEFAULT_INDEX=/p; s/^[^=]*\.cert=/SSL_CERT_FILE=/p
UV_SETTINGS := $(INDEX_SETTINGS); s/^[^=]*\.extra-index-url=/UV_INDEX=/p; s/^[^=]*\.find-links=/UV_FIND_LINKS=/p

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --upgrade pip uv >&2
	@set -a; eval "$$($(BIN)/python -m pip config list | sed -nE '$(UV_SETTINGS)')"; \
	 UV_INDEX="$${UV_DEFAULT_INDEX:-https://pypi.org/simple} $$UV_INDEX"; UV_INDEX_STRATEGY=unsafe-best-match; \
	 $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode \
	   --constraint constraints.txt --editable '.[quickstart,s3,dev]' >&2
	@touch $@

quickstart: install  ## synthetic ECGs → shards → frozen text → training → zero-shot table, some minutes on 2 cores
	@$(BIN)/mets-ray quickstart

serve: install  ## the newest bundle under .runs, or the packaged one, on http://127.0.0.1:8000, API and page; Ctrl-C stops it
	@RAY_ADDRESS=local $(BIN)/mets-ray serve

DEMO := .runs/demo
DEMO_JOB = RAY_ADDRESS=local $(BIN)/mets-ray
DEMO_CONFIG := --config jobs/configs/ptbxl_demo.yaml dataset_uri=$(DEMO)/data
DEMO_PREPARE = $(DEMO_JOB) prepare $(DEMO_CONFIG) run_uri=$(DEMO) prepare.source.uri=$(METS_TEST_DATA)/ptb-xl \
  prepare.source.statements_uri=$(METS_TEST_DATA)/ptb-xl-plus/labels
demo-bundle: install  ## train the bundle in the package anew, from the PTB-XL of METS_TEST_DATA; FIGURES=recipe.json
	@$(DEMO_PREPARE)
	@$(DEMO_JOB) pretrain $(DEMO_CONFIG) run_uri=$(DEMO)/runs
	@$(MAKE) --silent demo-export

# Without training: probabilities, the reference of inputs, the model card and the examples, for BUNDLE or the newest one.
BUNDLE ?= $(DEMO)/runs
demo-export: install
	@$(DEMO_JOB) calibrate $(DEMO_CONFIG) run_uri=$(DEMO)/runs evaluate.bundle_uri=$(BUNDLE)
	@$(BIN)/mets-ray export bundle_uri=$(BUNDLE) output_uri=mets_ray/bundles/ptbxl-demo name=ptbxl-demo onnx=false \
	  notes_uri=jobs/configs/ptbxl_demo.md $(if $(FIGURES),figures_uri=$(FIGURES))
	@$(BIN)/python -m mets_ray.exchange.ptbxl_examples $(METS_TEST_DATA)/ptb-xl mets_ray/bundles/ptbxl-demo

gallery: install  ## the pictures of README and docs from the bundle in the package, with the PTB-XL of METS_TEST_DATA
	@test -f $(DEMO)/data/card.json || $(DEMO_PREPARE)
	@$(BIN)/python docs/gallery.py $(DEMO)/data

# Two lanes of whole files and folders; see tests/conftest.py. A lane that dies ends the run: xdist would start another
# one, which runs the test that killed it again and again.
LANES := -n 2 --no-loadscope-reorder --max-worker-restart 0

test: install  ## the default tests, some 5 minutes on 2 cores; COVERAGE=1 counts lines too and takes a sixth more
	@$(BIN)/python -m pytest $(LANES) -m "not slow" --durations=10 $(if $(COVERAGE),--cov=mets_ray --cov-report=)
ifdef COVERAGE
	@echo "$$($(BIN)/coverage report --format=total) % of the lines of mets_ray; those run by Ray's workers do not count"
endif

test-slow: install  ## kills, browsers, clusters, whole jobs, some 20 minutes on 2 cores
	@$(BIN)/python -m pytest $(LANES) -m slow -vv --durations=0 --durations-min=5 -o faulthandler_timeout=900

lint: install  ## ruff, mypy, the layers of the house, and known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy mets_ray jobs
	@$(BIN)/lint-imports
	@$(MAKE) --silent audit AUDIT_S=10

# Answers are kept in pip-audit's cache, so a run that was cut off goes further the next time.
AUDIT_S ?= 600
AUDIT := $(BIN)/pip-audit --no-deps --disable-pip --progress-spinner off --timeout 3

audit: install  ## known vulnerabilities of all pinned versions, where the index tells them
	@pins=$$(mktemp); trap 'rm -f '$$pins EXIT; \
	 sed -nE 's/^([A-Za-z0-9._-]+==[^ ;]+).*/\1/p' constraints.txt locks/*.txt | tr A-Z_ a-z- | sort -u > $$pins; \
	 if ! grep '^idna==' $$pins | timeout 5 $(AUDIT) --format json --requirement /dev/stdin 2>/dev/null | grep -q '"vulns"'; then \
	   echo "audit: skipped, the index reached here tells no vulnerabilities" >&2; exit 0; fi; \
	 status=0; timeout $(AUDIT_S) $(AUDIT) --requirement $$pins >&2 || status=$$?; \
	 if [ $$status = 124 ]; then echo "audit: not done in $(AUDIT_S) s; \`make audit\` takes its time" >&2; exit 0; fi; \
	 exit $$status

docs: install  ## the documentation site, into .runs/docs-site; needs no network
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install  ## every benchmark in one table, at most half an hour on 2 cores; FULL=1 takes hours
	@$(BIN)/python benchmarks/all.py $(if $(FULL),--full)

bench-check: install  ## has something become more work? Counts, not times; UPDATE=1 writes the new baseline
	@$(BIN)/python benchmarks/check.py $(if $(UPDATE),--update)

gpu-check: install  ## does everything work on this GPU, and how fast? At most 8 minutes, no network
	@$(BIN)/python benchmarks/gpu_check.py

MINUTES ?= 2
chaos: install  ## training under SIGKILLs for MINUTES=2 minutes, beside the same training undisturbed
	@$(BIN)/python benchmarks/chaos.py --minutes $(MINUTES)

constraints: install  ## write constraints.txt from what is installed now
	@$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//' | grep -v ' @ ' > constraints.txt

# locks/base.txt holds what mets_ray itself needs and locks/<extra>.txt what an extra adds, for the images' Linux on x86-64
# with Python 3.11, each with the hashes of PyPI's files. All come from one solution, so they can be installed together.
# Of pip's settings only the index and its certificate are used: wheels from elsewhere have other hashes than users get.
EXTRAS := quickstart fast clinical archive s3 gcs azure mlflow wandb aws gcp
LOCK := $(BIN)/uv pip compile pyproject.toml --quiet --no-header --no-annotate --no-emit-index-url --generate-hashes \
  --only-binary :all: --python-version 3.11 --python-platform x86_64-manylinux_2_28

locks: install  ## write locks/ anew, hashed versions for the images; those of constraints.txt where it has them
	@rm -rf locks && mkdir locks
	@set -eu; set -a; eval "$$($(BIN)/python -m pip config list | sed -nE '$(INDEX_SETTINGS)')"; \
	 $(LOCK) --constraint constraints.txt $(EXTRAS:%=--extra %) --output-file locks/all.txt >&2; \
	 $(LOCK) --constraint locks/all.txt --output-file locks/base.txt >&2; \
	 base="$$(sed -nE 's/^([a-z0-9._-]+)==.*/--no-emit-package \1/p' locks/base.txt)"; \
	 for extra in $(EXTRAS); do \
	   $(LOCK) --constraint locks/all.txt --extra $$extra $$base --output-file locks/$$extra.txt >&2; done; \
	 rm locks/all.txt

clean:  ## remove runs, caches and the virtual environment
	rm -rf $(VENV) .runs .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
