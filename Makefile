# Commands for developers; `make` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Arguments for pip, for example an index with CPU builds of torch.
PIP_ARGS ?=
# A folder or a hub id.
CHECKPOINT ?= models/blip-mini-coco
override CHECKPOINT := $(patsubst %/,%,$(CHECKPOINT))
ARTIFACTS ?= build/artifacts
# Names of recipes, or "all".  [default: the recipes that `toolkit export --list` marks "default"]
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

# Worker processes of pytest. The tests of a file share fixtures, so they run in one process. Files keep their order: sorted by number of tests,
# slow files with few tests would run last, while the other processes are idle.
WORKERS ?= --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup lint test test-fast test-lowest test-full fuzz faults soak serve-load distribute-soak export artifacts base-artifacts bench bench-base perf-gate bench-peers peers quality parity parity-latest check-providers check-arm check-gpu docs golden clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --editable '.[dev]'
	touch $@

setup: $(VENV)/.ready ## Create the environment (.venv) and install the toolkit with its development tools

lint: setup ## Check format, lint, types, import rules and the links of README and docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.docs.links

test: setup ## Run the tests, without those of test-full
	$(BIN)/python -m pytest -m "not full" $(WORKERS)

test-fast: setup ## Run the tests that need neither an export nor a model (seconds)
	$(BIN)/python -m pytest -m fast -q $(WORKERS)

# A separate environment with the lowest versions that pyproject.toml allows. The second command compares exports with transformers.
LOWEST := .venv-lowest
$(LOWEST)/.ready: pyproject.toml tests/lowest.py
	$(PYTHON) -m venv $(LOWEST)
	$(PYTHON) -m tests.lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet $(PIP_ARGS) --constraint $(LOWEST)/constraints.txt --editable '.[dev]'
	touch $@

test-lowest: $(LOWEST)/.ready ## Run the fast tests and compare exports with transformers, with the lowest versions of all dependencies
	$(LOWEST)/bin/python -m pytest -m fast -q
	$(LOWEST)/bin/python -m pytest -m "not full" -q tests/parity/test_generate.py

# Packages of the reference loop in JavaScript.
LOOP := tests/js/node_modules/.package-lock.json
$(LOOP): tests/js/package-lock.json
	cd tests/js && npm ci
	touch $@

test-full: setup $(LOOP) ## Run the long tests: BLIP-base shapes, many images, the built wheel, the loop in JavaScript (needs Node.js, Chromium, strace)
	$(BIN)/python -m pytest -m full $(WORKERS)

fuzz: setup ## Open thousands of damaged and forged artifacts, hostile archives and mutated images, and count the outcomes (minutes)
	$(BIN)/python -m tests.fuzz

faults: setup ## Run each writing command on small disks, and kill it or fail it at each file system call; fail the server's calls
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)
	@test -d build/tiny || $(BIN)/python -m tests.checkpoints tiny build/tiny
	$(BIN)/toolkit export build/tiny --recipe onnx-int8 --output build/artifacts-tiny --overwrite --on-gate-failure write
	$(BIN)/python -m tests.faults.serving build/artifacts-tiny/tiny-onnx-int8

soak: setup ## Caption 10,000 images with 20 kills; check memory, file descriptors and threads
	@test -d build/tiny || $(BIN)/python -m tests.checkpoints tiny build/tiny
	$(BIN)/toolkit export build/tiny --recipe onnx-int8 --output build/artifacts-tiny --overwrite --on-gate-failure write
	$(BIN)/python -m tests.soak build/artifacts-tiny/tiny-onnx-int8

distribute-soak: setup ## Caption 10,000 images on a local S3 server with two Ray nodes, killing processes; list and resume 1 M rows; measure images/s
	@test -d build/tiny || $(BIN)/python -m tests.checkpoints tiny build/tiny
	$(BIN)/toolkit export build/tiny --recipe onnx-int8 --output build/artifacts-tiny --overwrite --on-gate-failure write
	@$(MAKE) --no-print-directory artifacts RECIPES=onnx-int8
	$(BIN)/python -m tests.scale build/artifacts-tiny/tiny-onnx-int8 --rate $(ARTIFACTS)/$(NAME)-onnx-int8 --output build/distribute.json \
		$(SCALE_ARGS)

export: setup ## Export CHECKPOINT to ARTIFACTS with the default recipes or RECIPES (names or "all"); up-to-date artifacts are kept
	@$(MAKE) --no-print-directory artifacts RECIPES="$(CHOSEN)"

# The rule of each outdated artifact appends its recipe to STALE. One command then exports all of them, so that they share one reference run.
STALE :=
artifacts: $(RECIPES:%=$(ARTIFACTS)/$(NAME)-%/manifest.json)
	$(if $(STALE),$(BIN)/toolkit export $(CHECKPOINT) $(STALE:%=--recipe %) --output $(ARTIFACTS) --overwrite $(EXPORT_ARGS))

$(ARTIFACTS)/$(NAME)-%/manifest.json: $(wildcard $(CHECKPOINT)/*.json $(CHECKPOINT)/*.safetensors) $(SOURCES)
	$(eval STALE += $*)

bench: export ## Benchmark the artifacts of `make export` against FP32 on the sample images, and write build/report.html
	$(BIN)/toolkit bench $(CHOSEN:%=$(ARTIFACTS)/$(NAME)-%) --checkpoint $(CHECKPOINT) --output build/records.jsonl --report build/report.html \
		--overwrite $(BENCH_ARGS)

$(BASE)/model.safetensors: tests/checkpoints.py | $(VENV)/.ready
	$(BIN)/python -m tests.checkpoints base $(BASE)

bench-base: setup $(BASE)/model.safetensors ## Benchmark the speed with BLIP-base shapes, random weights and 20 forced tokens
	@$(MAKE) --no-print-directory base-artifacts
	$(BIN)/toolkit bench $(BASE_ARTIFACTS) --checkpoint $(BASE) --images toolkit/sample --limit 5 --tokens 20 \
		--output build/bench-base.jsonl --overwrite

# Random weights fail the gate, so artifacts are written with the failure recorded.
base-artifacts:
	@$(MAKE) --no-print-directory artifacts CHECKPOINT=$(BASE) ARTIFACTS=$(BASE_ARTIFACTS) RECIPES="$(BASE_RECIPES)" EXPORT_ARGS="--on-gate-failure write"

PERF_RECIPES := onnx-int8 onnx-int4
perf-gate: setup ## Compare the speed-up of the shipped model with committed records of the same CPU; onnx-int8 slower by over 10 % fails
	@$(MAKE) --no-print-directory artifacts RECIPES='$(PERF_RECIPES)'
	$(BIN)/toolkit bench $(PERF_RECIPES:%=$(ARTIFACTS)/$(NAME)-%) --checkpoint $(CHECKPOINT) --images toolkit/sample --limit 8 \
		--output build/perf.jsonl --overwrite
	$(BIN)/python -m tests.perf_gate build/perf.jsonl

# A separate environment: OpenVINO and NNCF are needed only for this comparison. A peer without its package is skipped with a message.
OTHERS := .venv-peers
BLIP_DATA ?= ../shared/data
PEERS := build/peers
THROUGHPUT_PEERS := build/peers-throughput
PEER_NAMES := hf-int8 hf-bf16 ort-recompute-fp32 openvino-fp32 openvino-int8 openvino-recompute-int8
PEER_RECIPES := pytorch-int8 onnx-int8 onnx-int4
$(OTHERS)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OTHERS)
	$(OTHERS)/bin/python -m pip install --quiet $(PIP_ARGS) --editable '.[export,eval,device,peers]'
	touch $@

bench-peers: setup $(OTHERS)/.ready $(BASE)/model.safetensors ## Benchmark our recipes against variants of transformers and OpenVINO, in one run
	@$(MAKE) --no-print-directory base-artifacts BASE_RECIPES='onnx-fp32 $(PEER_RECIPES)'
	@$(MAKE) --no-print-directory artifacts RECIPES='onnx-fp32 $(PEER_RECIPES)'
	@$(MAKE) --no-print-directory peers NAME=$(notdir $(BASE)) PEER_CHECKPOINT=$(BASE) PEER_ARTIFACTS=$(BASE_ARTIFACTS)
	@$(MAKE) --no-print-directory peers PEER_CHECKPOINT=$(CHECKPOINT) PEER_ARTIFACTS=$(ARTIFACTS)
	$(OTHERS)/bin/toolkit bench $(PEER_RECIPES:%=$(BASE_ARTIFACTS)/$(notdir $(BASE))-%) $(PEERS)/$(notdir $(BASE)) --checkpoint $(BASE) \
		--images toolkit/sample --limit 5 --tokens 20 --output build/bench-peers.jsonl --overwrite
	$(OTHERS)/bin/toolkit bench $(PEER_RECIPES:%=$(ARTIFACTS)/$(NAME)-%) $(PEERS)/$(NAME) --checkpoint $(CHECKPOINT) \
		--dataset $(BLIP_DATA)/coco_val_cc_by --repeat 1 --output build/bench-peers-quality.jsonl --overwrite
	$(OTHERS)/bin/python -m toolkit.bench.peers.table build/bench-peers.jsonl build/bench-peers-quality.jsonl
	@$(MAKE) --no-print-directory peers NAME=$(notdir $(BASE)) PEERS=$(THROUGHPUT_PEERS) PEER_NAMES='openvino-int8 openvino-int8-streams' \
		PEER_CHECKPOINT=$(BASE) PEER_ARTIFACTS=$(BASE_ARTIFACTS)
	$(OTHERS)/bin/toolkit bench $(PEER_RECIPES:%=$(BASE_ARTIFACTS)/$(notdir $(BASE))-%) $(THROUGHPUT_PEERS)/$(notdir $(BASE)) \
		--checkpoint $(BASE) --images toolkit/sample --tokens 12 --throughput --batch-size 1,4 --output build/throughput.jsonl --overwrite

peers: $(PEER_NAMES:%=$(PEERS)/$(NAME)/%/peer.json)

$(PEERS)/$(NAME)/%/peer.json: $(SOURCES) $(wildcard toolkit/bench/peers/*.py)
	$(OTHERS)/bin/python -m toolkit.bench.peers $* --checkpoint $(PEER_CHECKPOINT) --graphs $(PEER_ARTIFACTS)/$(NAME)-onnx-fp32 \
		--calibration $(BLIP_DATA)/train/coco_train_mini --output $(PEERS)/$(NAME) --overwrite

# FastAPI is needed only for this comparison.
SERVE_BASE := $(BASE_ARTIFACTS)/$(notdir $(BASE))-onnx-int8
serve-load: setup $(OTHERS)/.ready $(BASE)/model.safetensors ## Load test of `toolkit serve` with 2,000 requests, beside a plain FastAPI server, and its two bars
	@$(MAKE) --no-print-directory artifacts RECIPES=onnx-int8
	@$(MAKE) --no-print-directory base-artifacts BASE_RECIPES=onnx-int8
	$(BIN)/python -m tests.load $(ARTIFACTS)/$(NAME)-onnx-int8 --checkpoint $(CHECKPOINT) --plain-python $(OTHERS)/bin/python \
		--base $(SERVE_BASE) --output build/serving.json

# The records of the results page on quality. QUALITY_FILES has one file per section; each has a rule.
QUALITY ?= build/quality
QUALITY_DATASET ?= $(or $(wildcard $(BLIP_DATA)/coco_val_cc_by),sample)
QUALITY_RECIPES := onnx-fp32 onnx-int8 onnx-int4 onnx-int8-fast pytorch-int8
QUALITY_FILES := $(QUALITY)/recipes.jsonl $(QUALITY)/stress.json $(QUALITY)/int4.json $(QUALITY)/sensitivity.json

$(QUALITY)/recipes.jsonl: $(SOURCES) | $(VENV)/.ready
	@$(MAKE) --no-print-directory artifacts RECIPES='$(QUALITY_RECIPES)' EXPORT_ARGS="--on-gate-failure write"
	mkdir -p $(@D)
	$(BIN)/toolkit bench $(QUALITY_RECIPES:%=$(ARTIFACTS)/$(NAME)-%) --checkpoint $(CHECKPOINT) --dataset $(QUALITY_DATASET) --repeat 1 \
		--output $@ --overwrite

$(QUALITY)/stress.json: $(SOURCES) tests/stress.py tests/quality/stress.py | $(VENV)/.ready
	$(BIN)/python -m tests.quality.stress --checkpoint $(CHECKPOINT) --dataset $(QUALITY_DATASET) --output $@

# Fine-tuning takes about half an hour per recipe, and needs the training sets.
QUALITY_TRAINING := $(wildcard $(addprefix $(BLIP_DATA)/train/,coco_300px flickr8k_full flickr8k_small))
QUALITY_FILES += $(if $(QUALITY_TRAINING),$(QUALITY)/qat.json)

$(QUALITY)/qat.json: $(SOURCES) | $(VENV)/.ready
	$(BIN)/python -m tests.quality.qat --output $@ --checkpoint $(CHECKPOINT) --dataset $(QUALITY_DATASET) --training $(QUALITY_TRAINING) \
		-- --learning-rate 1e-4

$(QUALITY)/int4.json: $(SOURCES) tests/quality/int4.py | $(VENV)/.ready
	$(BIN)/python -m tests.quality.int4 --checkpoint $(CHECKPOINT) --selection $(or $(wildcard $(BLIP_DATA)/train/coco_train_mini),sample) \
		--confirmation $(QUALITY_DATASET) --output $@

# Each of about 70 layers is measured twice. 24 images keep that below 10 minutes of CPU time.
$(QUALITY)/sensitivity.json: $(SOURCES) tests/quality/sensitivity.py | $(VENV)/.ready
	$(BIN)/toolkit sensitivity $(CHECKPOINT) --recipe onnx-int8 --dataset $(QUALITY_DATASET) --limit 24 --output $(QUALITY)/sensitivity.jsonl --overwrite \
		--report $(QUALITY)/sensitivity.html --json > $(QUALITY)/sensitivity-layers.json
	$(BIN)/python -m tests.quality.sensitivity $(QUALITY)/sensitivity-layers.json --output $@

# The trained matcher is not shipped.
MATCHER := $(wildcard $(BLIP_DATA)/../models/blip-mini-itm)
QUALITY_FILES += $(if $(MATCHER),$(QUALITY)/matching.json)

$(QUALITY)/matching.json: $(SOURCES) tests/quality/matching.py | $(VENV)/.ready
	$(BIN)/python -m tests.quality.matching --checkpoint $(MATCHER) --dataset $(QUALITY_DATASET) --output $@ \
		onnx-int8 onnx-int4 onnx-int8-fast pytorch-int8

quality: setup $(QUALITY_FILES) ## Measure quality on coco_val_cc_by of BLIP_DATA, or on the sample images, and write build/quality/quality.md
	$(BIN)/python -m tests.quality.page $(QUALITY)

# A separate environment: optimum-onnx 0.1 excludes transformers 5. It uses the FP32 artifacts of the main environment.
LATEST := .venv-latest
$(LATEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet $(PIP_ARGS) 'transformers>=5,<6' --editable '.[torch,device,eval]'
	touch $@

PARITY := build/parity
parity: setup $(LATEST)/.ready ## Compare captions for every decoding setting, tied and untied, with transformers 4.57 and 5
	$(BIN)/python -m tests.parity.campaign prepare $(PARITY)
	$(BIN)/python -m tests.parity.campaign compare $(PARITY)
	$(LATEST)/bin/python -m tests.parity.campaign compare $(PARITY)
	$(BIN)/python -m tests.parity.vqa prepare $(PARITY)
	$(BIN)/python -m tests.parity.vqa compare $(PARITY)
	$(LATEST)/bin/python -m tests.parity.vqa compare $(PARITY)
	$(BIN)/python -m tests.parity.matching prepare $(PARITY) $(MATCHER)
	$(BIN)/python -m tests.parity.matching compare $(PARITY)
	$(LATEST)/bin/python -m tests.parity.matching compare $(PARITY)

parity-latest: setup $(BASE)/model.safetensors $(LATEST)/.ready ## Compare captions and baseline speed with transformers 5
	@$(MAKE) --no-print-directory artifacts RECIPES='pytorch-fp32 onnx-fp32'
	@$(MAKE) --no-print-directory base-artifacts BASE_RECIPES=onnx-fp32
	$(LATEST)/bin/python -m tests.parity.latest $(CHECKPOINT) $(ARTIFACTS)/$(NAME)-pytorch-fp32 $(ARTIFACTS)/$(NAME)-onnx-fp32
	for environment in $(VENV) $(LATEST) $(VENV) $(LATEST); do \
		$$environment/bin/toolkit bench $(BASE_ARTIFACTS)/$(notdir $(BASE))-onnx-fp32 --checkpoint $(BASE) --images toolkit/sample \
			--limit 3 --repeat 1 --tokens 20 || exit 1; done

# A separate environment without our extras: a build of ONNX Runtime with another execution provider excludes the usual one.
OPENVINO := .venv-openvino
$(OPENVINO)/.ready: pyproject.toml
	$(PYTHON) -m venv $(OPENVINO)
	$(OPENVINO)/bin/python -m pip install --quiet $(PIP_ARGS) --editable . onnxruntime-openvino
	touch $@

check-providers: setup $(OPENVINO)/.ready ## Compare captions, time and memory of onnx-fp32 between ONNX Runtime's CPU and OpenVINO providers
	@$(MAKE) --no-print-directory artifacts RECIPES=onnx-fp32
	$(OPENVINO)/bin/python -m tests.providers $(ARTIFACTS)/$(NAME)-onnx-fp32

ARM_RECIPES := onnx-fp32 onnx-int8 onnx-int4
check-arm: setup ## Verify packages for 64-bit ARM and caption with them under qemu-aarch64 (needs apt, qemu-user, a network; an hour)
	@$(MAKE) --no-print-directory artifacts RECIPES='$(ARM_RECIPES)'
	$(BIN)/python -m tests.arm $(ARM_RECIPES:%=$(ARTIFACTS)/$(NAME)-%) --folder build/arm --output build/arm.json

# `prepare` needs no GPU. Copy the repository and build/gpu to the machine with the GPU, and run the second command with its Python.
check-gpu: setup ## Check FP16 on this machine's GPU: captions, drift, time, memory, halving of batches (at most 8 minutes)
	test -f build/gpu/expected.json || $(BIN)/python -m tests.gpu prepare build/gpu
	$(BIN)/python -m tests.gpu run build/gpu

docs: setup ## Render the generated parts of README and docs from the code and the committed records
	$(BIN)/python -m tests.docs

golden: setup ## Regenerate the expected outputs of tests; review the diff
	$(BIN)/python -m tests.golden

clean: ## Remove build results, but not the environments
	rm -rf build dist
