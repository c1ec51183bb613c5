# Atelier. Needs make and Python 3.11 or newer; everything else goes into $(VENV).
#   make up         the studio on this machine, in the foreground; Ctrl-C stops all of it
#   make test       everything but the tests marked long     make test-long  those
#   make check      lint, format, types, import contracts, house rules
#   make demo       train the demo checkpoint again          make bench      measure the engine
#   make clean      remove .venv and caches (data/ stays)

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
# Two processes suit the smallest machine this is promised for; more only help where memory allows.
TEST_PROCESSES ?= 2

ifneq ($(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null),)
CONSTRAINTS := constraints-cuda.txt
GPU := ,cuda
TORCH :=
else
CONSTRAINTS := constraints.txt
GPU :=
# The index's Linux build of torch may carry gigabytes of CUDA: TORCH_INDEX names one with CPU builds, asked first.
TORCH := $(if $(TORCH_INDEX),$(BIN)/pip install -q --no-compile -c constraints.txt --extra-index-url $(TORCH_INDEX) torch)
endif

.PHONY: up test test-long check format demo bench clean
.DEFAULT_GOAL := up

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Atelier needs Python 3.11 or newer with the venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.studio: pyproject.toml $(CONSTRAINTS) constraints.txt | $(BIN)/python
	@echo "Installing the studio into $(VENV) ..."
	@$(TORCH)
	$(BIN)/pip install -q --no-compile -c $(CONSTRAINTS) -e '.[studio$(GPU)]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(CONSTRAINTS) constraints.txt | $(BIN)/python
	@echo "Installing the studio and its tools into $(VENV) ..."
	@$(TORCH)
	$(BIN)/pip install -q --no-compile -c $(CONSTRAINTS) -e '.[dev$(GPU)]'
	@touch $@ $(VENV)/.studio

up: $(VENV)/.studio
	@exec $(BIN)/atelier up

test: $(VENV)/.dev
	@$(BIN)/python -m tests.browser.chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long" -n $(TEST_PROCESSES) --dist loadscope

test-long: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m long

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/architecture

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(VENV)/.studio
	$(BIN)/python -m workers.training.demo.train

bench: $(VENV)/.studio
	$(BIN)/python bench/engine.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
