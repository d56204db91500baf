# `make repro` and `make test` install what is missing and do the rest; `make help` lists everything.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help setup repro relock test test-faults test-processors test-cluster lint lock bench bench-accuracy compare \
	gpu-evidence report table board reset clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install the locked versions into .venv (what needs them does this first)
	@scripts/setup

repro: setup ## run the whole pipeline, then print its metrics
	@PYTHONPATH=src python stages/check.py repro >/dev/null # before dvc removes a stage's old results
	dvc repro
	cat reports/linear_eval/metrics.json

relock: setup ## have dvc.lock take over changed comments, and code that no result depends on, without a run
	PYTHONPATH=src scripts/relock

test: setup lint ## check the code and run the tests; where a GPU is, those that need one too
	pytest -n 3 --dist loadfile -m "not slow and not gpu and not cluster"
	! python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || pytest -m gpu

test-faults: setup ## kill, fill, tear and flood it, and see it recover (an hour on two cores)
	pytest -o faulthandler_timeout=1800 tests/faults

test-processors: setup ## run all stages, made small, on emulated processors too, and compare the bytes (5 to 15 minutes)
	@scripts/setup emulator
	pytest -s -o faulthandler_timeout=1800 tests/processors

test-cluster: setup ## run on a SLURM of two nodes that it starts here, as root: end, kill and queue again (half an hour)
	@scripts/setup cluster
	pytest -o faulthandler_timeout=1800 -m cluster tests/cluster

lint: setup ## ruff, mypy and the layering of the modules
	ruff check .
	ruff format --check .
	mypy
	lint-imports

bench: ## measure against torchvision, lightly, kornia and FFCV: ten minutes; DEVICE=cuda IMAGES=folder
	@scripts/setup bench
	python -m benchmarks --write --device $(or $(DEVICE),cpu) $(if $(IMAGES),--images "$(IMAGES)")

bench-accuracy: ## compare what few epochs teach with lightly's parts: IMAGES=folder with train/<class>/ and test/<class>/
	@scripts/setup bench
	python -m benchmarks.accuracy --write $(if $(IMAGES),--images "$(IMAGES)")

compare: setup ## compare losses over seeds, or another of benchmarks/sweeps: SWEEP=losses SEEDS=3 (docs/comparing.md)
	python -m benchmarks.compare $(or $(SWEEP),losses) --seeds $(or $(SEEDS),3) $(if $(PRESET),--preset $(PRESET)) \
		$(if $(IMAGES),--images "$(IMAGES)") $(if $(PER_CLASS),--per-class $(PER_CLASS)) $(addprefix -S ,$(SET))

gpu-evidence: setup ## measure what one GPU shows in ten minutes; IMAGES=folder with train/<class>/* and test/<class>/*
	python -m benchmarks.gpu_evidence $(if $(IMAGES),--images "$(IMAGES)")

report: setup ## one page that compares the last commit and the workspace, or EXPS="main an-experiment workspace"
	scripts/report-page $(EXPS)

table: setup ## all experiments of the last commit: their accuracies, and the parameters that differ
	scripts/table

board: setup ## TensorBoard over all experiments of this clone
	tensorboard --logdir runs

lock: ## renew requirements.lock and, on top of it, requirements-bench.lock from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-annotate --no-header \
		--no-emit-index-url --no-emit-package opencv-python --output-file requirements.lock pyproject.toml
	set -o pipefail; uv pip compile --quiet --universal --python-version 3.11 --extra bench --no-annotate --no-header \
		--no-emit-index-url --no-emit-package opencv-python --constraint requirements.lock pyproject.toml \
		| awk -F '[= ]' 'NR == FNR {base[$$1]; next} !($$1 in base)' requirements.lock - > requirements-bench.lock

# the files go first: Git may take one that DVC wrote twice in a second for unchanged
reset: setup ## back to the last commit: discards all changes that are not committed, and all files in reports/; new files stay
	git cat-file -e HEAD:./params.yaml
	@for state in MERGE_HEAD CHERRY_PICK_HEAD REVERT_HEAD REBASE_HEAD; do \
		! git rev-parse --quiet --verify $$state >/dev/null || { echo "reset: Git has begun what $$state names; abort that first"; exit 1; }; \
	done
	git reset -q -- .
	rm -rf reports params.yaml dvc.lock
	git checkout HEAD -- .
	dvc checkout --force

OUTS := data/raw data/beton data/views.safetensors data/features data/embedding.safetensors data/scores.safetensors \
	data/label_subsets.json models/encoder.safetensors models/head.safetensors
clean: ## remove what stages and boards wrote (not reports, .venv or the DVC cache)
	rm -rf $(OUTS) $(foreach out,$(OUTS),$(addprefix $(dir $(out)).$(notdir $(out)),.part .old)) \
		runs checkpoints dvc_plots
	rmdir data models 2>/dev/null || true
