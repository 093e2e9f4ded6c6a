# The front door. Needs only make and python3 (3.11 to 3.13, with venv); uv and all packages are installed into .uv and
# .venv here. Caches lie where their tools keep them: ~/.cache/uv, and ~/.cache/edgeclf for decoded pixels.
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .uv/bin/uv
RUN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
# A few processes at once, one more than there are cores, since some tests wait; one file's tests stay together, so that they
# share what they made. The order of files is that of tests/conftest.py.
PROCESSES := $(shell $(PYTHON) -c "import os; print(min(4, (os.cpu_count() or 1) + 1))")
PYTEST := $(RUN)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-lean test-tflite-runtime arm64 soak full lint format contracts wheels wheelhouse \
	example-c resolve bench zoo clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

quickstart: install ## the whole road on real data: train, export, verify, bench, classify (writes quickstart/)
	$(RUN)/edgeclf quickstart --out quickstart

test: install ## the tests, at most 10 minutes on 2 cores
	$(PYTEST) -m "not slow and not gpu and not arm64"

test-lean: $(UV) ## device and calibration in an environment without TensorFlow
	UV_PROJECT_ENVIRONMENT=.venv-lean $(UV) sync --quiet --frozen --python $(PYTHON) \
		--package edgeclf-calibration --all-extras --group test
	.venv-lean/bin/pytest tests/device tests/calibration -m "not tensorflow and not slow and not gpu and not arm64"

test-tflite-runtime: $(UV) ## the device tests on tflite-runtime: Python 3.11 and NumPy 1, an environment outside the lock
	$(UV) venv --quiet --clear --python python3.11 .venv-tflite-runtime
	$(UV) pip install --quiet --python .venv-tflite-runtime numpy==1.26.4 opencv-python-headless==4.11.0.86 \
		tflite-runtime==2.14.0 "pytest>=9" "hypothesis>=6.150" --editable ./device
	.venv-tflite-runtime/bin/pytest tests/device -m "not tensorflow and not slow and not gpu and not arm64" \
		--ignore tests/device/test_web.py --ignore tests/device/test_web_browser.py

arm64: install ## the device's core under an emulated Raspberry Pi 4 and 5; fetches Debian packages once
	$(RUN)/python .ci/arm64 $(UV)

MINUTES ?= 60
soak: install ## a stream for an hour (MINUTES=60) with faults of its camera; the record goes to build/soak.json
	mkdir -p build
	$(RUN)/python -m benchmarks.runtime.soak --minutes $(MINUTES) --json build/soak.json

full: install ## everything that takes long: slow tests, every backbone, recipes, seeds of the quickstart
	$(PYTEST) -m "not gpu and not arm64"
	$(RUN)/python benchmarks/backbones.py
	$(RUN)/python benchmarks/quickstart_seeds.py --json benchmarks/results/quickstart.json
	$(RUN)/python benchmarks/recipes.py solar-cells
	$(RUN)/python benchmarks/recipes.py fashion-cnn
	$(RUN)/python benchmarks/recipes.py fashion-vit
	$(RUN)/python benchmarks/less_labels.py unlabelled
	$(RUN)/python benchmarks/less_labels.py distilled
	$(RUN)/python benchmarks/quantization.py
	$(RUN)/python benchmarks/video.py
	$(RUN)/python benchmarks/drop.py
	$(RUN)/python benchmarks/robustness.py
	$(RUN)/python benchmarks/calibration_memory.py
	$(RUN)/python -m benchmarks.runtime.soak --minutes 60

lint: install ## ruff, mypy, architecture contracts
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

format: install ## let ruff format and mend what it can
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

wheels: install ## build the three wheels into dist/ and try each in an empty environment
	rm -rf dist
	$(UV) build --quiet --all-packages --wheel --out-dir dist
	$(RUN)/pytest tests/device/test_install.py -m slow

# What `make wheelhouse` makes it for.
ARCH ?= aarch64
PY ?= 3.11
EXTRA ?= litert,camera,web
OUT ?= wheelhouse

wheelhouse: $(UV) ## everything a board without internet needs: ARCH=aarch64 PY=3.11 EXTRA=litert,camera,web
	.ci/wheelhouse $(UV) .uv/bin/pip $(ARCH) $(PY) $(EXTRA) $(OUT)

example-c: ## compile the example in C
	cc -std=c11 -Wall -Wextra -Werror -O2 -o device/examples/classify device/examples/classify.c

resolve: $(UV) ## show that the Pythons that are not run here resolve too
	.ci/resolve $(UV)

bench: install ## the benchmarks behind the figures in the docs
	$(RUN)/python benchmarks/prepare.py --json benchmarks/results/prepare.json
	$(RUN)/python benchmarks/pixel_cache.py --json benchmarks/results/pixel_cache.json
	$(RUN)/python benchmarks/near_duplicates.py --json benchmarks/results/near_duplicates.json
	$(RUN)/python benchmarks/training.py
	$(RUN)/python -m benchmarks.measuring
	$(RUN)/python -m benchmarks.runtime.overhead
	$(RUN)/python -m benchmarks.runtime.frames_per_second
	$(RUN)/python -m benchmarks.runtime.startup
	$(RUN)/python -m benchmarks.runtime.mediapipe
	$(RUN)/python -m benchmarks.runtime.ultralytics
	$(RUN)/python -m benchmarks.runtime.freshness
	$(RUN)/python benchmarks/zoo.py

zoo: install ## known networks in every scheme: table and picture of docs/reference/zoo.md; an hour, quiet
	$(RUN)/python benchmarks/zoo.py

clean: ## remove what the targets above made, but not quickstart/
	rm -rf .uv .venv .venv-lean .venv-tflite-runtime build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Compiled once: importing TensorFlow takes 5 seconds then and 13 otherwise, where Python may not write beside it.
install: $(UV)
	$(UV) sync --compile-bytecode --frozen --python $(PYTHON) --all-packages --extra quickstart

$(UV):
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
		"edgeclf needs Python 3.11 to 3.13, but $(PYTHON) is %d.%d; run: make PYTHON=python3.12 ..." % v[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) can not make virtual environments here; run: sudo apt install" \
		"$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
	@echo "Installing uv $(UV_VERSION) into .uv (this folder only)" >&2
	@$(PYTHON) -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) \
		|| { rm -rf .uv; exit 1; }
