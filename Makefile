# Two commands on a fresh clone: `make demo`, `make test`. Both set up .venv from requirements/ and re-use it.
PYTHON ?= python3.11
GPU ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo 1 || echo 0)
KIND := $(if $(filter 1,$(GPU)),gpu,cpu)
LOCK := requirements/$(KIND).txt
BIN := .venv/bin
STAMP := .venv/.$(KIND)-$(shell sha256sum $(LOCK) pyproject.toml | sha256sum | cut -c1-16)

.PHONY: setup demo demo-rows test test-slow docs parity perf chaos lint format lock clean
setup: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@echo "Setting up .venv from $(LOCK) (first time: a few minutes, 5 GB on disk)"
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --no-deps --requirement $(LOCK)
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready: $(BIN)/steelyard"

demo: $(STAMP)
	@$(BIN)/python -m deployments.demo

demo-rows: $(STAMP)
	@$(BIN)/python -m deployments.demo rows

test: $(STAMP)
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

docs: $(STAMP)
	@rm -rf site
	@$(BIN)/zensical build --clean --strict
	@echo "Read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory site"

parity: $(STAMP)
	@$(BIN)/python -m perf.parity

perf: $(STAMP)
	@$(BIN)/python -m perf

chaos: $(STAMP)
	@$(BIN)/python -m perf.chaos

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock:
	@$(PYTHON) requirements/lock.py

clean:
	rm -rf .venv .demo site
