# Everything a person runs. `make` alone lists it; each target only calls a tool.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Arguments for pip, for example an index that carries torch's CPU build.
PIP_ARGS ?=
# A directory or a hub id.
CHECKPOINT ?= models/blip-mini-coco
override CHECKPOINT := $(patsubst %/,%,$(CHECKPOINT))
ARTIFACTS ?= build/artifacts
# Names of recipes, or "all".  [default: the deployable set, which `toolkit export --list` marks]
RECIPES ?=
LISTED = $(shell $(BIN)/toolkit export --list | awk '$(1) {print $$1}')
CHOSEN = $(if $(filter all,$(RECIPES)),$(call LISTED,1),$(or $(RECIPES),$(call LISTED,$$2 == "default")))
# More options for `make bench`, for example --dataset FILE --images DIR --limit 50.
BENCH_ARGS ?=
NAME := $(notdir $(CHECKPOINT))
BASE := build/blip-base-random
BASE_ARTIFACTS := build/artifacts-base
BASE_RECIPES := pytorch-fp32 pytorch-int8 onnx-fp32 onnx-int8 onnx-int8-single onnx-int4 onnx-int8-full onnx-int8-fast
SOURCES := $(shell find exporters runtimes -name '*.py')

# Worker processes of pytest. A file's tests run in one of them, since they share its fixtures. Files keep their order: the slow ones have few tests
# and would come last otherwise, when the other processes have nothing left to do.
WORKERS ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup lint test test-fast test-lowest test-full fuzz faults soak export artifacts base-artifacts bench bench-base bench-peers peers parity-latest check-providers docs golden clean

help: ## List what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	touch $@

setup: $(VENV)/.ready ## Make the environment (.venv)

lint: setup ## Format, lint and type checks, import rules, links of README and docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docs.links

test: setup ## Tests that need only Python
	$(BIN)/python -m pytest -m "not full" $(WORKERS)

test-fast: setup ## Tests that need neither an export nor a model: seconds
	$(BIN)/python -m pytest -m fast -q

# The lowest versions that pyproject.toml allows, in an environment of their own. The second line is for what the fast tests leave out.
LOWEST := .venv-lowest
$(LOWEST)/.ready: pyproject.toml tests/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -m tests.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet $(PIP_ARGS) --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $@

test-lowest: $(LOWEST)/.ready ## The fast tests, and exports against transformers, with the lowest versions of all dependencies
	$(LOWEST)/bin/python -m pytest -m fast -q
	$(LOWEST)/bin/python -m pytest -m "not full" -q tests/parity/test_generate.py

# The reference loop in JavaScript; its packages come from the registry that npm is set up for.
LOOP := tests/js/node_modules/.package-lock.json
$(LOOP): tests/js/package-lock.json
	cd tests/js && npm ci
	touch $@

test-full: setup $(LOOP) ## The other tests: BLIP-base shapes, many images, the built wheel, the loop in JavaScript (needs Node)
	$(BIN)/python -m pytest -m full

fuzz: setup ## Damaged and forged artifacts, hostile archives, mutated images: thousands, counted (minutes)
	$(BIN)/python -m tests.fuzz

faults: setup ## Kill and fail every writing command at each call to the file system, and on small disks
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

soak: setup ## 10,000 images, killed 20 times; memory, descriptors and threads watched
	@test -d build/tiny || $(BIN)/python -m tests.checkpoints tiny build/tiny
	$(BIN)/toolkit export build/tiny --recipe onnx-int8 --output build/artifacts-tiny --overwrite --on-gate-failure write
	$(BIN)/python -m tests.soak build/artifacts-tiny/tiny-onnx-int8

export: setup ## Export CHECKPOINT into ARTIFACTS: the deployable set, or RECIPES (names, or "all"); unchanged ones are kept
	@$(MAKE) --no-print-directory artifacts RECIPES="$(CHOSEN)"

# A rule for each artifact notes its recipe; one command then makes all that are out of date, so that they share one start and one reference run.
STALE :=
artifacts: $(RECIPES:%=$(ARTIFACTS)/$(NAME)-%/manifest.json)
	$(if $(STALE),$(BIN)/toolkit export $(CHECKPOINT) $(STALE:%=--recipe %) --output $(ARTIFACTS) --overwrite $(EXPORT_ARGS))

$(ARTIFACTS)/$(NAME)-%/manifest.json: $(wildcard $(CHECKPOINT)/*.json $(CHECKPOINT)/*.safetensors) $(SOURCES)
	$(eval STALE += $*)

bench: export ## Benchmark what `make export` made against FP32 on the shipped images; ends with a report to open in a browser
	$(BIN)/toolkit bench $(CHOSEN:%=$(ARTIFACTS)/$(NAME)-%) --checkpoint $(CHECKPOINT) --output build/records.jsonl --report build/report.html \
		--overwrite $(BENCH_ARGS)

$(BASE)/model.safetensors: tests/checkpoints.py | $(VENV)/.ready
	$(BIN)/python -m tests.checkpoints base $(BASE)

bench-base: setup $(BASE)/model.safetensors ## BLIP-base shapes, random weights, 20 forced tokens: the speed reference
	@$(MAKE) --no-print-directory base-artifacts
	$(BIN)/toolkit bench $(BASE_ARTIFACTS) --checkpoint $(BASE) --images toolkit/sample --limit 5 --tokens 20 \
		--output build/bench-base.jsonl --overwrite

# Random weights answer at random, so the gate records and does not refuse.
base-artifacts:
	@$(MAKE) --no-print-directory artifacts CHECKPOINT=$(BASE) ARTIFACTS=$(BASE_ARTIFACTS) RECIPES="$(BASE_RECIPES)" EXPORT_ARGS="--on-gate-failure write"

# OpenVINO and NNCF are measured, never needed, so they have an environment of their own. Preparing a peer whose package is missing costs a line.
OTHERS := .venv-peers
BLIP_DATA ?= ../shared/data
PEERS := build/peers
PEER_NAMES := hf-int8 hf-bf16 ort-recompute-fp32 openvino-fp32 openvino-int8 openvino-recompute-int8
PEER_RECIPES := pytorch-int8 onnx-int8 onnx-int4
$(OTHERS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OTHERS)
	$(OTHERS)/bin/python -m pip install --quiet $(PIP_ARGS) --editable '.[export,eval,device,peers]'
	touch $@

bench-peers: setup $(OTHERS)/.ready $(BASE)/model.safetensors ## Our recipes beside transformers' and OpenVINO's, in one run
	@$(MAKE) --no-print-directory base-artifacts BASE_RECIPES='onnx-fp32 $(PEER_RECIPES)'
	@$(MAKE) --no-print-directory artifacts RECIPES='onnx-fp32 $(PEER_RECIPES)'
	@$(MAKE) --no-print-directory peers NAME=$(notdir $(BASE)) PEER_CHECKPOINT=$(BASE) PEER_ARTIFACTS=$(BASE_ARTIFACTS)
	@$(MAKE) --no-print-directory peers PEER_CHECKPOINT=$(CHECKPOINT) PEER_ARTIFACTS=$(ARTIFACTS)
	$(OTHERS)/bin/toolkit bench $(PEER_RECIPES:%=$(BASE_ARTIFACTS)/$(notdir $(BASE))-%) $(PEERS)/$(notdir $(BASE)) --checkpoint $(BASE) \
		--images toolkit/sample --limit 5 --tokens 20 --output build/bench-peers.jsonl --overwrite
	$(OTHERS)/bin/toolkit bench $(PEER_RECIPES:%=$(ARTIFACTS)/$(NAME)-%) $(PEERS)/$(NAME) --checkpoint $(CHECKPOINT) \
		--dataset $(BLIP_DATA)/coco_val_cc_by --repeat 1 --output build/bench-peers-quality.jsonl --overwrite
	$(OTHERS)/bin/python -m toolkit.bench.peers.table build/bench-peers.jsonl build/bench-peers-quality.jsonl

peers: $(PEER_NAMES:%=$(PEERS)/$(NAME)/%/peer.json)

$(PEERS)/$(NAME)/%/peer.json: $(SOURCES) $(wildcard toolkit/bench/peers/*.py)
	$(OTHERS)/bin/python -m toolkit.bench.peers $* --checkpoint $(PEER_CHECKPOINT) --graphs $(PEER_ARTIFACTS)/$(NAME)-onnx-fp32 \
		--calibration $(BLIP_DATA)/train/coco_train_mini --output $(PEERS)/$(NAME) --overwrite

# transformers 5 cannot live beside optimum-onnx 0.1, so it has an environment of its own; its FP32 artifacts are those of the first one.
LATEST := .venv-latest
$(LATEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet $(PIP_ARGS) 'transformers>=5,<6' --editable '.[torch,device,eval]'
	touch $@

parity-latest: setup $(BASE)/model.safetensors $(LATEST)/.ready ## Parity and baseline speed with transformers 5
	@$(MAKE) --no-print-directory artifacts RECIPES='pytorch-fp32 onnx-fp32'
	@$(MAKE) --no-print-directory base-artifacts BASE_RECIPES=onnx-fp32
	$(LATEST)/bin/python -m tests.parity.latest $(CHECKPOINT) $(ARTIFACTS)/$(NAME)-pytorch-fp32 $(ARTIFACTS)/$(NAME)-onnx-fp32
	for environment in $(VENV) $(LATEST) $(VENV) $(LATEST); do \
		$$environment/bin/toolkit bench $(BASE_ARTIFACTS)/$(notdir $(BASE))-onnx-fp32 --checkpoint $(BASE) --images toolkit/sample \
			--limit 3 --repeat 1 --tokens 20 || exit 1; done

# A build of ONNX Runtime with another execution provider excludes the usual one, so it has an environment of its own, without our extras.
OPENVINO := .venv-openvino
$(OPENVINO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/python -m pip install --quiet $(PIP_ARGS) --editable . onnxruntime-openvino
	touch $@

check-providers: setup $(OPENVINO)/.ready ## Captions, time and memory of onnx-fp32 on ONNX Runtime's CPU and OpenVINO providers
	@$(MAKE) --no-print-directory artifacts RECIPES=onnx-fp32
	$(OPENVINO)/bin/python -m tests.providers $(ARTIFACTS)/$(NAME)-onnx-fp32

docs: setup ## Render the generated parts of README and docs from the code and the committed records
	$(BIN)/python -m tests.docs

golden: setup ## Rewrite the expected outputs of tests; review the diff
	$(BIN)/python -m tests.golden

clean: ## Remove what was built, but not the environments
	rm -rf build dist
